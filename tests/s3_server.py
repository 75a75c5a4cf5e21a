"""An S3 server over HTTP in this process, which fails in the ways that real ones do when it is told to."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import WSGIRequestHandler, make_server

from spoco_blocks.stages.sources import open_source
from spoco_blocks.volumes import object_store

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "not-to-be-seen",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}
ANSWERS = {
    "SlowDown": ("503 Slow Down", "Please reduce your request rate."),
    "InternalError": ("500 Internal Server Error", "We encountered an internal error. Please try again."),
    "AccessDenied": ("403 Forbidden", "Access Denied"),
}
# Request (method, path, how often this was asked before) → what goes wrong: a key of ANSWERS, "dropped" before it is
# answered, "lost" after it was obeyed, "cut" in the middle of the answer, a delay in seconds, or nothing.
Fault = str | float | None


def forget_clients() -> None:
    """Let what is opened from now on look into the environment again."""
    S3FileSystem.clear_instance_cache()
    object_store._is_anonymous.cache_clear()
    open_source.cache_clear()


class FaultyS3:
    """A WSGI application in front of the server's."""

    secret = ENVIRONMENT["AWS_SECRET_ACCESS_KEY"]

    def __init__(self) -> None:
        self._application = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self.asked: Counter[tuple[str, str]] = Counter()
        self.faults = 0
        self.fault: Callable[[str, str, int], Fault] | None = None
        self.address = ""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        with self._lock:
            before = self.asked[request]
            self.asked[request] += 1
            fault = self.fault(*request, before) if self.fault else None
            self.faults += fault is not None
        if isinstance(fault, float):
            time.sleep(fault)
        if fault == "dropped":
            raise ConnectionResetError
        if fault in ANSWERS:
            status, message = ANSWERS[fault]
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = f"<Error><Code>{fault}</Code><Message>{message}</Message></Error>".encode()
            start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            return [body]
        answer = self._application(environ, start_response)
        if fault == "lost":
            raise ConnectionResetError
        return _half(b"".join(answer)) if fault == "cut" else answer

    @property
    def environment(self) -> dict[str, str]:
        """What a client must have in its environment; it finds nothing else of the user's."""
        return ENVIRONMENT | {"AWS_ENDPOINT_URL": self.address}

    @contextmanager
    def failing(self, fault: Callable[[str, str, int], Fault]) -> Iterator[FaultyS3]:
        """Fail inside."""
        self.asked.clear()
        self.faults, self.fault = 0, fault
        try:
            yield self
        finally:
            self.fault = None

    def new_bucket(self, name: str) -> str:
        """Make a bucket that everybody may read, and give its URI."""
        client = boto3.client("s3")
        client.create_bucket(Bucket=name)
        everybody = {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{name}/*",
        }
        client.put_bucket_policy(Bucket=name, Policy=json.dumps({"Version": "2012-10-17", "Statement": [everybody]}))
        return f"s3://{name}"


def _half(body: bytes) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    raise ConnectionResetError


class _Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *arguments: Any) -> None:
        pass

    def connection_dropped(self, *arguments: Any) -> None:
        self.close_connection = True


@contextmanager
def s3_server() -> Iterator[FaultyS3]:
    """Run the server in a thread."""
    application = FaultyS3()
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    application.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield application
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
