"""A local HTTP server that speaks the chat-completions protocol, and misbehaves as it is told to.

Answers are given in order, the last again and again: a text is what the model says; a function is handed the request's
handler and does what it likes with the connection.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Misbehave = Callable[["Handler"], None]


@dataclass
class ChatServer:
    """`heard` are the requests, as decoded JSON, `keys` what they were authorized with."""

    url: str
    answers: list[str | Misbehave] = field(default_factory=list)
    heard: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def says(self, *answers: str | Misbehave) -> "ChatServer":
        """From now on, with what was heard forgotten."""
        self.answers = list(answers)
        self.heard.clear()
        self.keys.clear()
        return self

    def next(self) -> str | Misbehave:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    @property
    def prompts(self) -> list[str]:
        """The last user message of each request."""
        return [str(request["messages"][-1]["content"]) for request in self.heard]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    chat: ChatServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.chat.heard.append(json.loads(body))
        self.chat.keys.append(self.headers.get("authorization", ""))
        answer = self.chat.next()
        if isinstance(answer, str):
            self.respond(200, completion(answer, self.chat.heard[-1]["model"]))
        else:
            answer(self)

    def respond(self, status: int, body: dict[str, Any]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_: Any) -> None:
        """Not to stderr."""


def completion(text: str, model: str) -> dict[str, Any]:
    """The body of an answer, with what it took."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100},
    }


def too_many_requests(handler: Handler) -> None:
    handler.respond(429, {"error": {"message": "slow down", "type": "rate_limit", "code": "rate_limit_exceeded"}})


def no_protocol(handler: Handler) -> None:
    handler.respond(200, {"hello": "world"})


def hangs(handler: Handler) -> None:
    """Until the test is over."""
    handler.chat.over.wait(60)
    handler.close_connection = True


def endless(handler: Handler) -> None:
    """A body without an end, as far as the other side reads it."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("connection", "close")
    handler.end_headers()
    handler.close_connection = True
    try:
        while not handler.chat.over.is_set():
            handler.wfile.write(b" " * 65_536)
    except OSError:
        pass  # it has had enough


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """On a free port of loopback."""

    class Bound(Handler):
        chat: ChatServer

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    Bound.chat = ChatServer(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield Bound.chat
    finally:
        Bound.chat.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
