"""
An S3 server in a process of its own: moto, made to answer one request at a time.

S3 creates an object if there is none in one step; moto looks first and writes then. Requests are
logged, and can be answered by errors, before they take effect or after.
"""

from __future__ import annotations

import io
import json
import re
import sys
import threading
import time
from typing import Any

from werkzeug.serving import make_server

REFUSAL = (
    '<?xml version="1.0" encoding="UTF-8"?>'
    "<Error><Code>{code}</Code><Message>{message}</Message></Error>"
)


class Front:
    """Keeps a log and a list of faults in front of the server."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._turn = threading.Lock()
        self._log: list[str] = []
        self._faults: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        size = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(size) if size else b""
        if environ["PATH_INFO"].startswith("/stand-in/"):
            return self._told(environ["PATH_INFO"], body, start)
        query = environ.get("QUERY_STRING", "")
        line = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{'?' if query else ''}{query}"
        self._log.append(line)
        fault = self._due(line)
        if fault and fault.get("seconds"):
            time.sleep(fault["seconds"])
        if fault and not fault.get("after"):
            return self._refused(fault, start)
        with self._turn:
            # Known in full, the body does not hold up others.
            environ["wsgi.input"] = io.BytesIO(body)
            if fault:
                b"".join(self._server(environ, lambda *_: None))
                return self._refused(fault, start)
            return [b"".join(self._server(environ, start))]

    def _due(self, line: str) -> dict[str, Any] | None:
        for fault in self._faults:
            if re.search(fault["match"], line):
                fault["times"] = fault.get("times", 1 << 30) - 1
                if not fault["times"]:
                    self._faults.remove(fault)
                return fault
        return None

    def _told(self, path: str, body: bytes, start: Any) -> list[bytes]:
        if path == "/stand-in/faults":
            self._faults = json.loads(body)
        elif path == "/stand-in/fill":
            self._fill(json.loads(body))
        elif path == "/stand-in/reset":
            self._log = []
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(self._log).encode()]

    @staticmethod
    def _fill(paths: list[str]) -> None:
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        for path in paths:
            bucket, _, key = path.partition("/")
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, key, b"{}")

    @staticmethod
    def _refused(fault: dict[str, Any], start: Any) -> list[bytes]:
        code = fault.get("code", "InternalError")
        text = REFUSAL.format(code=code, message=fault.get("message", code))
        start(f"{fault.get('status', 500)} Refused", [("Content-Type", "application/xml")])
        return [text.encode()]


def main() -> None:
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler

    class Silent(WSGIRequestHandler):
        def log(self, *_: object) -> None: ...

    front = Front(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, front, threaded=True, request_handler=Silent)
    print(server.server_port, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()  # until whoever started this is gone


if __name__ == "__main__":
    main()
