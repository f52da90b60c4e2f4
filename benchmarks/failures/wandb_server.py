"""As much of a W&B server as a run of W&B 0.31 asks for: no server of theirs can be installed from PyPI.

It takes the run (GraphQL `upsertBucket`), promises no files, and takes the stream of the run's history and drops it:
what is read back is the client's own file, as `wandb sync` would. Seen to be enough: `init` 1 s, `finish` 0.1 s.
"""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pilothouse.cli.brokers import HOST


class WandbServer:
    """Listens at `port` until it is closed."""

    def __init__(self, port: int) -> None:
        self._server = ThreadingHTTPServer((HOST, port), _Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self._whole()
        self._say({"data": _answer(json.loads(body))} if self.path.startswith("/graphql") else {})

    def do_GET(self) -> None:
        self._say({})

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _whole(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunks(self) -> bytes:
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        return body + self.rfile.readline()

    def _say(self, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        with suppress(OSError):  # a client that was cut off
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)


def _answer(asked: dict[str, Any]) -> dict[str, Any]:
    query, given = asked["query"], asked.get("variables") or {}
    if "upsertBucket" in query:
        owner = {"id": "1", "name": given.get("project"), "entity": {"id": "1", "name": "nobody"}}
        run = {"id": "1", "name": given.get("name"), "displayName": given.get("name"), "config": "{}", "project": owner}
        return {"upsertBucket": {"bucket": run, "inserted": True}}
    if "createRunFiles" in query:
        return {"createRunFiles": {"runID": "1", "uploadHeaders": [], "files": []}}
    return {}
