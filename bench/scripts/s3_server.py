"""An S3 server that answers late: ``python s3_server.py MILLISECONDS`` prints its address and runs until ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

DELAY_S = float(sys.argv[1]) / 1000
SERVE = DomainDispatcherApplication(create_backend_app)


class Quiet(WSGIRequestHandler):
    """Keeps connections, says nothing."""

    protocol_version = "HTTP/1.1"

    def log(self, *arguments: Any) -> None:
        """Say nothing."""


def late(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    """Answer late."""
    time.sleep(DELAY_S)
    return SERVE(environ, start_response)


server = make_server("127.0.0.1", 0, late, threaded=True, request_handler=Quiet)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
