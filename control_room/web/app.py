"""The control room as an application: the API and the page around an archive, let in by tokens.

Everything comes as an argument, so that a test and `pilothouse serve` compose the very same. Nothing is loaded from
anywhere but here: the content policy says so to the browser as well.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, Request, Response
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from ...events.errors import PilothouseError, StackNotRunning, UnknownRun, UserMistake
from ...settings import Settings
from ...storage.named import ask
from .access import Access, called_by
from .acting import router as acting
from .answers import Answer
from .archive import ArchivePool
from .exposing import router as exposing
from .live import Heart, Pulse
from .policies import router as policies
from .reading import router
from .reports import router as reports
from .session import router as session

STATIC = Path(__file__).parent / "static"
WATCHED_RUNS = 2_000
LEAST_PACKED, PACKED = 4_000, 4
"""From how many bytes on an answer is packed, and how hard: a fleet of a thousand runs, on a phone. Streams are not."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def make_app(archive: ArchivePool, access: Access, settings: Settings) -> FastAPI:
    """The application; whoever serves it owns the archive."""
    app = FastAPI(
        title="Pilothouse control room", version="1", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json"
    )
    app.state.archive, app.state.access, app.state.settings = archive, access, settings
    app.state.heart = Heart(lambda: _pulse(archive))
    app.include_router(session)
    app.include_router(router)
    app.include_router(reports)
    app.include_router(policies)
    app.include_router(acting)
    app.include_router(exposing)
    app.add_exception_handler(PilothouseError, _refused)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.middleware("http")(_guarded)
    app.add_middleware(GZipMiddleware, minimum_size=LEAST_PACKED, compresslevel=PACKED)

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    return app


async def _guarded(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuse whoever calls us by another name; say to the browser what a page may do."""
    access: Access = request.app.state.access
    if called_by(request.headers.get("host", "")) not in access.hosts:
        return Answer({"detail": "the control room does not go by this name"}, status_code=421)
    answer = await call_next(request)
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer


def _refused(_: Request, error: Exception) -> Response:
    match error:
        case UnknownRun():
            status = 404
        case UserMistake() if not isinstance(error, StackNotRunning):
            status = 400
        case _:
            status = 503
    return Answer({"detail": str(error)}, status_code=status)


def _pulse(archive: ArchivePool) -> Pulse:
    with archive.client() as client:
        return {row["run_id"]: (row["last_at"], row["last_step"]) for row in ask(client, "pulse", limit=WATCHED_RUNS)}
