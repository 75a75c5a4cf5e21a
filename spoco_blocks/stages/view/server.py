"""Serves folders to a viewer in a browser on this machine: parts of files, to pages of any origin, and nothing else."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from spoco_blocks.errors import ExecutorError

PIECE = 2**20
# First and last byte, of which one may be left out: up to the end, or so many at the end.
_RANGE = re.compile(r"bytes=(?:(?P<first>\d+)-(?P<last>\d*)|-(?P<length>\d+))")


def byte_range(asked: str, size: int) -> tuple[int, int] | None:
    """Give first byte and end of what a `Range` header asks for in a file of so many bytes.

    Of a header that is not understood that is the whole file; None where nothing of it is there.
    """
    match = _RANGE.fullmatch(asked)
    if match is None:
        return 0, size
    if match["length"]:
        first, end = max(0, size - int(match["length"])), size
    else:
        first, end = int(match["first"]), min(size, int(match["last"] or size) + 1)
    return (first, end) if first < end else None


class FileServer(ThreadingHTTPServer):
    """A server on this machine's loopback address.

    Parameters
    ----------
    folders : mapping of str to Path
        What is served under each name.
    port : int
        Where; 0 = any free port.

    Raises
    ------
    ExecutorError
        When the port is taken.
    """

    daemon_threads = True

    def __init__(self, folders: Mapping[str, Path], port: int = 0) -> None:
        self.folders = {name: folder.resolve() for name, folder in folders.items()}
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise ExecutorError(f"port {port} cannot be served ({error.strerror}); choose another --port.") from None

    @property
    def address(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://127.0.0.1:{self.server_port}"

    def find(self, request: str) -> Path | None:
        """Give the file that a request names, if it lies in one of the folders."""
        name, _, rest = unquote(urlsplit(request).path).lstrip("/").partition("/")
        folder = self.folders.get(name)
        if folder is None:
            return None
        try:
            path = (folder / rest).resolve()
            return path if path.is_relative_to(folder) and path.is_file() else None
        except (ValueError, OSError):  # no name of a file: too long, or with a zero byte
            return None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that went away in the middle of an answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_GET(self) -> None:
        """Send a file, or a part of it."""
        path = self.server.find(self.path)
        if path is None:
            self._answer(HTTPStatus.NOT_FOUND, 0)
            return
        size, asked = path.stat().st_size, self.headers.get("Range", "")
        found = byte_range(asked, size)
        if found is None:
            self._answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, 0, {"Content-Range": f"bytes */{size}"})
            return
        first, end = found
        if _RANGE.fullmatch(asked):
            part = {"Content-Range": f"bytes {first}-{end - 1}/{size}"}
            self._answer(HTTPStatus.PARTIAL_CONTENT, end - first, part)
        else:
            self._answer(HTTPStatus.OK, size)
        if self.command == "HEAD":
            return
        with path.open("rb") as file:
            file.seek(first)
            for start in range(first, end, PIECE):
                self.wfile.write(file.read(min(PIECE, end - start)))

    do_HEAD = do_GET  # noqa: N815

    def do_OPTIONS(self) -> None:
        """Allow what a page of another origin asks for."""
        allowed = {"Access-Control-Allow-Methods": "GET, HEAD, OPTIONS", "Access-Control-Allow-Headers": "*"}
        # A browser asks so before a page of the web may reach this machine.
        self._answer(HTTPStatus.NO_CONTENT, 0, allowed | {"Access-Control-Allow-Private-Network": "true"})

    def _answer(self, status: HTTPStatus, length: int, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Expose-Headers", "Content-Range, Content-Length")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: a viewer asks for thousands of files, many of which need not be there."""


def serve(server: FileServer) -> None:
    """Serve until the user presses Ctrl-C."""
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
