"""An S3 server that answers late, and refuses every Nth request for a while (0 = none).

``python s3_server.py MILLISECONDS N`` prints its address and runs until ended.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

DELAY_S, EVERY = float(sys.argv[1]) / 1000, int(sys.argv[2])
REQUESTS = count(1)
SERVE = DomainDispatcherApplication(create_backend_app)


class Quiet(WSGIRequestHandler):
    """Keeps connections, says nothing."""

    protocol_version = "HTTP/1.1"

    def log(self, *arguments: Any) -> None:
        """Say nothing."""


def late(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """Answer late, or that there are too many requests."""
    time.sleep(DELAY_S)
    if EVERY and next(REQUESTS) % EVERY == 0:
        start_response("503 Slow Down", [("Content-Type", "application/xml")])
        return [b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"]
    return SERVE(environ, start_response)


server = make_server("127.0.0.1", 0, late, threaded=True, request_handler=Quiet)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
