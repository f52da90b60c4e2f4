"""Who may ask what of the control room: every endpoint, by every role."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from pilothouse.control_room.web.access import Access, Person, called_by, digest
from pilothouse.control_room.web.app import make_app
from pilothouse.control_room.web.archive import ArchivePool
from pilothouse.events.errors import StackNotRunning
from pilothouse.settings import Settings

ROLES = ("viewer", "operator", "admin")
LOOKS = (
    "GET /metrics",
    "GET /api/session",
    "GET /api/fleet",
    "GET /api/waiting",
    "GET /api/live",
    "GET /api/run",
    "GET /api/run/evaluations",
    "GET /api/run/events",
    "GET /api/run/incident",
    "GET /api/run/logs",
    "GET /api/run/margin",
    "GET /api/run/ranks",
    "GET /api/run/report",
    "GET /api/run/series",
    "GET /api/run/similar",
    "GET /api/compare",
    "GET /api/history",
    "GET /api/policies",
    "GET /api/policies/differences",
    "POST /api/policies/backtest",
)
NEEDS = dict.fromkeys(LOOKS, "viewer") | {"POST /api/run/orders": "operator", "POST /api/policies/activate": "admin"}
FOR_ALL = ("POST /api/session", "DELETE /api/session")
ASKED = {"run": ["a", "b"], "metric": "loss", "incident": "i", "before": "x", "after": "y"}
TOLD = {"run": "a", "text": "name: x\nmode: observe\nrules: []", "verb": "resume", "token": "no"}
WANTED = {"POST /api/run/orders": ("verb",), "POST /api/session": ("token",)}


def token(role: str) -> str:
    return f"the-token-of-the-{role}"


def away() -> object:
    raise StackNotRunning("the archive is away")


@pytest.fixture(scope="module")
def page() -> Iterator[TestClient]:
    people = {digest(token(role)): Person(role, role) for role in ROLES}  # type: ignore[arg-type]  # roles they are
    app = make_app(ArchivePool(away), Access(people, frozenset({"page"})), Settings(kafka="127.0.0.1:1"))  # type: ignore[arg-type]  # it never opens
    app.state.heart.end()  # so that whoever listens is let go at once
    with TestClient(app, base_url="http://page") as client:
        yield client


def answer(page: TestClient, operation: str, headers: dict[str, str]) -> int:
    method, _, path = operation.partition(" ")
    body = {name: TOLD[name] for name in WANTED.get(operation, ("run", "text"))} if method == "POST" else None
    return page.request(method, path, params=ASKED, json=body, headers=headers).status_code


def operations(page: TestClient) -> set[str]:
    paths = page.get("/api/openapi.json").json()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


def test_every_endpoint_says_which_role_it_needs(page: TestClient) -> None:
    assert operations(page) == {*NEEDS, *FOR_ALL}


@pytest.mark.parametrize("operation", NEEDS)
def test_an_endpoint_answers_who_may_and_nobody_else(page: TestClient, operation: str) -> None:
    for headers in ({}, {"Authorization": "Bearer a-token-of-nobody"}, {"Authorization": f"Basic {token('admin')}"}):
        assert answer(page, operation, headers) == 401
    for role in ROLES:
        status = answer(page, operation, {"Authorization": f"Bearer {token(role)}"})
        may = ROLES.index(role) >= ROLES.index(NEEDS[operation])
        assert (status == 403) is not may, (role, status)
        assert status not in (401, 422)


def test_a_refusal_says_what_the_token_allows_and_what_would_be_needed(page: TestClient) -> None:
    told = page.post("/api/policies/activate", json={"run": "a", "text": "x"}, headers=bearer("operator")).json()
    assert told == {"detail": "operator may look and order; this needs the role admin"}


def test_a_cookie_is_as_good_as_a_header_and_forgotten_at_the_end(page: TestClient) -> None:
    assert page.post("/api/session", json={"token": "a-token-of-nobody"}).status_code == 401
    signed = page.post("/api/session", json={"token": token("viewer")})
    assert signed.json() == {"name": "viewer", "role": "viewer"}
    kept = signed.headers["set-cookie"].lower()
    assert all(words in kept for words in ("httponly", "samesite=strict"))
    assert page.get("/api/session").json()["role"] == "viewer"
    page.delete("/api/session")
    assert page.get("/api/session").status_code == 401


def test_whoever_calls_the_control_room_by_another_name_is_refused(page: TestClient) -> None:
    told = page.get("/api/fleet", headers=bearer("admin") | {"Host": "elsewhere.example"})
    assert told.status_code == 421
    assert [called_by(host) for host in ("a:1", "A", "[::1]:8", "[::1]")] == ["a", "a", "[::1]", "[::1]"]


def test_the_page_and_its_documents_are_for_all_and_say_nothing_of_any_run(page: TestClient) -> None:
    assert [page.get(path).status_code for path in ("/", "/static/app.js", "/api/openapi.json")] == [200] * 3


def bearer(role: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(role)}"}
