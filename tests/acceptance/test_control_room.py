"""The control room as a person uses it: a run goes wrong, somebody agrees in the page, the trainer obeys."""

import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from torch import nn, optim

import pilothouse
from pilothouse.settings import load_settings
from pilothouse.tests.browser import Tab, browser
from pilothouse.tests.stack_fixture import RunningStack, running_stack

RUN = "goes-wrong-<b>live</b>"
POLICY = """
name: ask-first
mode: enforce
rules:
  - name: cut-learning-rate
    when: conditions.Stable == 'False'
    severity: page
    actions: [{action: scale_lr, factor: 0.5}]
    approval: {by: human, timeout_seconds: 3000, default: decline}
    ttl_steps: 100000
"""


class Trainer:
    """Logs a loss that is well until it is told to go wrong, and obeys."""

    def __init__(self, stack: RunningStack) -> None:
        self._settings = load_settings(stack.environ)
        self.breaks, self.over = threading.Event(), threading.Event()
        self.rate = 1.0

    def train(self) -> None:
        model, noise = nn.Linear(1, 1), random.Random(1)
        optimizer = optim.SGD(model.parameters(), lr=1.0)
        with pilothouse.start_run("shown", run_id=RUN, settings=self._settings) as run:
            pilot = run.pilot(model, optimizer)
            optimizer.register_step_pre_hook(lambda told, *_: setattr(self, "rate", told.param_groups[0]["lr"]))
            step = 0
            while not self.over.wait(0.02):
                run.log(step, loss=2.0 + noise.gauss(0, 0.02) + 4.0 * self.breaks.is_set(), grad_norm=1.0)
                optimizer.step()
                pilot.safe_point(step)
                step += 1


@contextmanager
def training(stack: RunningStack) -> Iterator[Trainer]:
    trainer = Trainer(stack)
    thread = threading.Thread(target=trainer.train)
    thread.start()
    try:
        yield trainer
    finally:
        trainer.over.set()
        thread.join(60)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with running_stack(tmp_path_factory.mktemp("seen"), "--page-port", "0") as running:
        yield running


def page_of(stack: RunningStack) -> str:
    """The address that `up` printed."""
    [address] = re.findall(r"http://\S+#token=\S+", stack.printed.read_text())
    return str(address)


def until(tab: Tab, holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 90
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"not within 90 s: {what}; the page says:\n{tab.value('document.body.innerText')}")
        time.sleep(0.2)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the browser's pipes end with the browser
def test_a_person_agrees_in_the_page_and_the_trainer_obeys(stack: RunningStack, tmp_path: Path) -> None:
    policy = tmp_path / "ask_first.yaml"
    policy.write_text(POLICY)
    with browser(tmp_path / "browser") as tab, training(stack) as trainer:
        stack.until(lambda: stack.archived(RUN, "run_started"), "the run is known")
        assert stack.cli("policy", "activate", str(policy), "--run", RUN).returncode == 0
        tab.visit(page_of(stack))
        until(tab, lambda: RUN in tab.text("main"), "the fleet shows the run")
        assert tab.value("document.querySelector('main b')?.textContent") is None, "a name is no markup"
        assert "token" not in tab.value("location.href")

        tab.value("document.querySelector('tbody a').click()")
        until(tab, lambda: "Normal" in tab.text("#head"), "the run is well")
        trainer.breaks.set()
        until(tab, lambda: "scale_lr factor=0.5" in tab.text("#asked"), "the page asks")
        assert trainer.rate == 1.0
        tab.value("document.querySelector('#asked input').value = 'seen on my phone'")
        tab.value("document.querySelector('#asked button.approve').click()")
        until(tab, lambda: "1 of 1 ranks" in tab.text("#interventions"), "the page shows what the trainer did")
        assert trainer.rate == 0.5
        assert "seen on my phone" in stack.cli("events", RUN, "--kind", "intervention_approved").stdout
        seen_well(tab, tmp_path, "run")

        look_back(tab, tmp_path)
        assert tab.complaints == []


def look_back(tab: Tab, pictures: Path) -> None:
    """The incident, the history, the whole report, and the policy with what it would have done."""
    tab.value("document.querySelector('#incidents tbody a').click()")
    until(tab, lambda: "To be filled in" in reported(tab), "the incident is told with a draft of its postmortem")
    assert "scale_lr" in reported(tab)
    seen_well(tab, pictures, "incident")
    for view, words in (("history", "Service levels"), (f"report/{quote(RUN, safe='')}", "Configuration")):
        tab.value(f"location.hash = '#/{view}'")
        until(tab, partial(reports, tab, words), view)
        seen_well(tab, pictures, view.partition("/")[0])
    tab.value("location.hash = '#/policies'")
    until(tab, lambda: "ask-first" in tab.text("main"), "the policy is shown")
    tab.value("document.querySelector('[aria-label=\"Backtest on\"]').selectedIndex = 1")
    tab.value("[...document.querySelectorAll('main button')].find((each) => each.textContent === 'backtest').click()")
    until(tab, lambda: "in force then" in tab.text("main"), "what the policy would have done")
    seen_well(tab, pictures, "policies")


def reports(tab: Tab, words: str) -> bool:
    return words in reported(tab)


def reported(tab: Tab) -> str:
    """The words of a report that the page shows; it keeps them apart from its own."""
    return str(
        tab.value(
            "[...document.querySelectorAll('main div')].find((each) => each.shadowRoot)?.shadowRoot.textContent ?? ''"
        )
    )


def seen_well(tab: Tab, folder: Path, view: str) -> None:
    """Nothing is cut off, on a phone in the dark and on a desk in the light; the pictures are kept."""
    for width, scheme in ((1200, "light"), (400, "dark")):
        tab.sized(width)
        tab.seen_as(scheme=scheme)
        tab.picture(folder / f"{view}-{width}.png")
        assert tab.value("document.documentElement.scrollWidth") <= width, (view, width)
