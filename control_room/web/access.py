"""Who may look and who may act: tokens with roles, and the hosts by which the control room may be called.

Whoever holds a token is the person it was made out to. Only digests of tokens are kept, so that neither a log nor a
comparison's time tells one. A name by which we are not called is refused: a page elsewhere whose name was bent to this
address (DNS rebinding) cannot speak in the browser's name.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from fastapi import Cookie, Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

Role = Literal["viewer", "operator", "admin"]
RANKS: Mapping[Role, int] = {"viewer": 0, "operator": 1, "admin": 2}
MAY: Mapping[Role, str] = {
    "viewer": "look",
    "operator": "look and order",
    "admin": "look, order, and say which policy governs",
}
BEARER = HTTPBearer(auto_error=False, description="A token of `pilothouse serve`; a browser keeps it in a cookie")
COOKIE = "pilothouse_token"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Person(NamedTuple):
    """Who a token was made out to, and what it allows."""

    name: str
    role: Role


@dataclass(frozen=True)
class Access:
    """The tokens that are let in, by their digests, and the hosts by which we are called."""

    people: Mapping[str, Person]
    hosts: frozenset[str] = LOOPBACK

    def who(self, token: str) -> Person | None:
        """Whose token it is."""
        return self.people.get(digest(token))


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Needs:
    """Lets a request pass whose token has at least this role; the handler is given who it is."""

    def __init__(self, role: Role) -> None:
        self.role: Role = role

    def __call__(
        self,
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)],
        pilothouse_token: Annotated[str, Cookie(include_in_schema=False)] = "",
    ) -> Person:
        access: Access = request.app.state.access
        person = access.who(bearer.credentials.strip() if bearer else pilothouse_token)
        if person is None:
            raise HTTPException(401, "a token is needed: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        if RANKS[person.role] < RANKS[self.role]:
            raise HTTPException(403, f"{person.name} may {MAY[person.role]}; this needs the role {self.role}")
        return person


def via_page(person: Person) -> str:
    """By what name the log knows what somebody orders here."""
    return f"{person.name} via the control room"


def called_by(host: str) -> str:
    """The name in a Host header, without its port."""
    name = host.strip().lower()
    return name.rpartition(":")[0] if ":" in name and not name.endswith("]") else name
