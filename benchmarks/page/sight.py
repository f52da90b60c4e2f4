"""From a fault in training to its sight on the page: a real stack, a real trainer, a real browser, one clock.

A run logs a healthy loss until the page calls it well; then its loss is NaN. The time from the step that was so to the
moment at which the page's words change, in the fleet and in the run's own view, and of it how long it took until the
decision stood in the archive: the rest is the page's own.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pilothouse
from pilothouse.settings import load_settings
from pilothouse.tests.browser import Tab
from pilothouse.tests.stack_fixture import RunningStack

from .seeing import Times, until

STEP_SECONDS = 0.02
NOTICE = """
window.noticed = null;
new MutationObserver(() => {{
  const said = document.querySelector({where!r})?.textContent;
  if (!noticed && ['Diverged', 'Unstable'].includes(said)) noticed = Date.now();
}}).observe(document.querySelector('main'), {{ childList: true, subtree: true, characterData: true }});
"""


class Trainer:
    """Logs what is healthy until it is told to break; `broke_at` is then the time of its first bad step, Unix s."""

    def __init__(self, stack: RunningStack, name: str) -> None:
        self._settings, self._name = load_settings(stack.environ), name
        self.breaks, self.over = threading.Event(), threading.Event()
        self.broke_at = 0.0

    def train(self) -> None:
        noise, step = random.Random(1), 0
        with pilothouse.start_run(self._name, run_id=self._name, settings=self._settings) as run:
            while not self.over.wait(STEP_SECONDS):
                broken = self.breaks.is_set()
                if broken and not self.broke_at:
                    self.broke_at = time.time()
                run.log(step, loss=float("nan") if broken else 2.0 + noise.gauss(0, 0.02), grad_norm=1.0)
                step += 1


@contextmanager
def training(stack: RunningStack, name: str) -> Iterator[Trainer]:
    trainer = Trainer(stack, name)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    try:
        yield trainer
    finally:
        trainer.over.set()
        thread.join(60)


def sights(stack: RunningStack, tab: Tab, address: str, times: int) -> dict[str, dict[str, Times]]:
    """By view: ms from the first bad step to its sight, and to the archive."""
    tab.visit(address)
    found: dict[str, dict[str, Times]] = {}
    for view in ("fleet", "run"):
        shown, kept = [], []
        for number in range(times):
            name = f"sight-{view}-{number}"
            broke, noticed = _sight(stack, tab, view, name)
            shown.append(1e3 * (noticed - broke))
            kept.append(1e3 * (_archived(stack, name) - broke))
        found[view] = {"sight_ms": Times.of(shown), "archived_ms": Times.of(kept)}
    return found


def _sight(stack: RunningStack, tab: Tab, view: str, name: str) -> tuple[float, float]:
    """When the first bad step was, and when the page said so: Unix seconds."""
    where = f"[data-key={name}] .phase" if view == "fleet" else "#head .phase"
    with training(stack, name) as trainer:
        stack.until(lambda: stack.archived(name, "run_assessed"), "the run is judged")
        tab.value(f"location.hash = '#/{'' if view == 'fleet' else f'run/{name}'}'")
        until(tab, f"document.querySelector({where!r})?.textContent === 'Normal'")
        tab.value(NOTICE.format(where=where))
        time.sleep(random.uniform(0.0, 2.0))  # faults do not wait for a page's turn
        trainer.breaks.set()
        until(tab, "noticed")
        return trainer.broke_at, tab.value("noticed") / 1e3


def _archived(stack: RunningStack, name: str) -> float:
    [row] = stack.query(
        "SELECT toFloat64(min(archived_at)) AS at FROM event_log "
        f"WHERE kind = 'phase_changed' AND run_id = '{name}' AND phase IN ('Diverged', 'Unstable')"
    )
    return float(row["at"])


def page_of(data_dir: Path) -> str:
    """Where the stack's own control room is, with its token."""
    from pilothouse.cli.page_token import page_of as told
    from pilothouse.cli.stack_file import told_by_stack

    return told(data_dir, int(told_by_stack(data_dir)["page_port"]))
