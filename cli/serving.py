"""Serving the control room: who is let in, by which names, and where it listens. Called by `serve`.

Whoever starts it is its administrator: the address that is printed holds a token, kept in the data directory for this
account alone. Others are let in by a file of tokens with roles.
"""

import json
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from ..events.errors import UserMistake
from ..producers.person import person
from .extras import WEB, require
from .page_token import own_token, page_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..control_room.web.access import Access

LOCAL_ONLY = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")
GRACE_SECONDS = 5
"""For what was asked before the end: an order waits so long for the governor's answer."""


class Wanted(NamedTuple):
    """The options of `serve`."""

    host: str
    port: int
    tokens: Path | None
    called: tuple[str, ...]
    data_dir: Path | None
    quiet: bool = False


class Held(BaseModel):
    """One token of the file that `--tokens` names."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=100)]
    role: Literal["viewer", "operator", "admin"]
    token: Annotated[str, Field(min_length=20, max_length=500)]


def serve(wanted: Wanted) -> None:
    """Serve until Ctrl-C.

    Raises:
        UserMistake: it cannot listen there, or nobody said who may come in.
        StackNotRunning: no archive answers.
    """
    require(WEB, "`pilothouse serve`")
    if wanted.host not in LOCAL_ONLY and wanted.tokens is None:
        raise UserMistake(f"--host {wanted.host} lets others in: say who they are with --tokens")
    from ..control_room.web.app import make_app
    from ..control_room.web.archive import ArchivePool
    from .reading import open_archive
    from .rendering import out

    archive = open_archive(wanted.data_dir)
    archive.client.close()
    own = own_token(archive.settings.data_dir)
    access = access_of(own, wanted.tokens, (wanted.host, *wanted.called))
    app = make_app(ArchivePool(lambda: open_archive(wanted.data_dir).client), access, archive.settings)
    listener = _listen(wanted.host, wanted.port)
    if not wanted.quiet:
        where = page_of(archive.settings.data_dir, listener.getsockname()[1], wanted.host)
        out().print(f"the control room: {where}", soft_wrap=True, markup=False, highlight=False)
        out().print("this address lets in whoever has it; Ctrl-C ends the page, not the stack", markup=False)
    _run(app, listener)


def access_of(own: str, tokens: Path | None, names: tuple[str, ...]) -> "Access":
    """Who is let in, and by which names.

    Raises:
        UserMistake: the file of tokens is none.
    """
    from ..control_room.web.access import LOOPBACK, Access, Person, digest

    people = {digest(held.token): Person(held.name, held.role) for held in _read(tokens)} if tokens else {}
    hosts = LOOPBACK | {name.lower() for name in names if name not in EVERYWHERE}
    return Access(people | {digest(own): Person(person(), "admin")}, frozenset(hosts))


def _read(file: Path) -> list[Held]:
    try:
        return TypeAdapter(list[Held]).validate_python(json.loads(file.read_text()))
    except (OSError, ValueError) as error:
        from ..events.codec import first_fault

        why = first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise UserMistake(f"--tokens {file}: {why}") from error


def _listen(host: str, port: int) -> socket.socket:
    """
    Raises:
        UserMistake: another program listens there, or there is no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise UserMistake(f"cannot listen on {host}:{port} ({error.strerror}): choose another --port") from error
    return listener


def _run(app: "FastAPI", listener: socket.socket) -> None:
    """Until SIGTERM or Ctrl-C, which are a good end. Pages listen for as long as they are open: they are let go at
    once."""
    import uvicorn

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            """As theirs, but that the signal is not raised again behind it: who stops is not killed by it."""
            before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            app.state.heart.end()

    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_SECONDS)
    Server(config).run(sockets=[listener])
