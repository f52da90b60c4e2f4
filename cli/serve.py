"""`pilothouse serve`: the control room in a browser, over a stack's archive and log.

Registered by `main`; who is let in, and how it is served, is in `serving`, which is imported when it is asked for.
"""

from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Of the stack [default: ~/.pilothouse]")]


def serve(  # noqa: PLR0913, PLR0917  # a command's options
    host: Annotated[str, typer.Option(help="Address to listen on; another than loopback needs --tokens")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 is any free one")] = 18080,
    tokens: Annotated[
        Path | None, typer.Option(help="JSON: a list of {name, role: viewer|operator|admin, token}")
    ] = None,
    called: Annotated[
        list[str] | None, typer.Option("--called", help="A name by which browsers call it; may be repeated")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Do not print the address, for it holds a token")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show the control room in a browser: the fleet, each run live, and what waits for an answer."""
    from .serving import Wanted
    from .serving import serve as run

    run(Wanted(host, port, tokens, tuple(called or ()), data_dir, quiet))
