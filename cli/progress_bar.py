"""A bar for what takes longer than a person likes to wait without a word.

Used by `replay`, `backtest`, `plan` and `import`. Drawn on stderr, from the third second on, and only on a terminal.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE_SECONDS = 2.0

Seen = Callable[[str, float, float | None], None]
"""Told of progress: what is being done, how far, and how far it goes (None: nobody knows)."""


@contextmanager
def progress_bar() -> Iterator[Seen]:
    """Hands out what must be called as the work goes on; the bar is gone when the work is done."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from .rendering import out

    console = out(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=None)
    began = time.monotonic()
    begun = False

    def seen(what: str, done: float, total: float | None) -> None:
        nonlocal begun
        bar.update(task, description=what, completed=done, total=total)
        if not begun and time.monotonic() - began >= PATIENCE_SECONDS:
            begun = True
            bar.start()

    try:
        yield seen
    finally:
        bar.stop()
