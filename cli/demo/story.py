"""Carries out the demo's plan on a running stack: each run from its policy to the archive's account of it.

`command` calls `tell_story`, `benchmarks.quiet` calls `train_leg` for each of its seeds. A run is started (`launch`),
watched through the archive (`watch`, shown by `screen`), and read back (`account`) when the archive has all of it.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from ...events.errors import PilothouseError
from ...governance.policy import default_policy_text, with_mode
from ...producers.delivery.kafka import send_fact
from ...producers.faults import write_faults
from ...stream_processors.policy_text import PolicyText
from .account import Account, is_complete, read_account
from .launch import Ranks
from .plan import Leg, Name, Scope, Setting, legs_of
from .recipe import Recipe
from .screen import Screen
from .stack import DemoStack
from .watch import Watch

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

POLL_SECONDS = 0.3
LEG_SECONDS = 900.0
ARCHIVE_SECONDS = 60.0

TITLES = {
    "fault-free": "without faults, governed (mode enforce)",
    "ungoverned": "with faults, ungoverned (observed only)",
    "governed": "the same faults, governed (mode enforce)",
    "quiet": "without faults, governed (mode enforce)",
}


class LoopOpen(PilothouseError):
    """Something of the loop did not come in time; the message says what."""


def tell_story(stack: DemoStack, setting: Setting, screen: Screen, scope: Scope) -> dict[Name, Account]:
    """Train every run of the plan, one after the other; what the archive knows of each."""
    accounts: dict[Name, Account] = {}
    legs = legs_of(setting, scope)
    for number, leg in enumerate(legs, start=1):
        screen.title(f"Run {number} of {len(legs)}: {TITLES[leg.name]}  [dim]{setting.run_id(leg)}[/]")
        accounts[leg.name] = train_leg(stack, setting, leg, screen)
    return accounts


def train_leg(stack: DemoStack, setting: Setting, leg: Leg, screen: Screen) -> Account:
    """One run, from the policy that governs it to its account.

    Raises:
        RankFailed: a rank ended with an error.
        LoopOpen: the archive did not get to see the run's end.
    """
    client, run_id = stack.connect(), setting.run_id(leg)
    activate(stack, run_id, leg)
    watch = Watch(client, run_id)
    recipe = recipe_of(setting, leg, stack.data_dir / "demo" / run_id)
    deadline = time.monotonic() + LEG_SECONDS
    with Ranks(recipe, setting.ranks, stack.data_dir / "logs" / run_id, stack.environ) as ranks:
        look_at = time.monotonic()
        while not ranks.ended():
            if (now := time.monotonic()) > deadline:
                raise LoopOpen(f"{run_id} did not end within {LEG_SECONDS:.0f} s")
            if now >= look_at:
                _look(watch, screen)
                look_at = now + screen.look_every
            time.sleep(POLL_SECONDS)
    _until_archived(client, run_id, setting, watch, screen)
    return read_account(client, run_id)


def activate(stack: DemoStack, run_id: str, leg: Leg) -> None:
    """Put the packaged policy, in the leg's mode, into the log before the run's first record."""
    policy = PolicyText("default", with_mode(default_policy_text(), leg.mode))
    said = policy.activated(run_id, time.time_ns() // 1_000).model_copy(update={"who": "pilothouse demo"})
    send_fact(stack.settings, said)


def recipe_of(setting: Setting, leg: Leg, folder: Path) -> Recipe:
    """What the ranks are told."""
    return Recipe(
        run_id=setting.run_id(leg),
        checkpoints=str(folder / "checkpoints"),
        steps=setting.steps,
        seed=setting.seed,
        faults=write_faults(leg.faults),
        batch_size=setting.batch_size,
        checkpoint_every=setting.checkpoint_every,
        evaluate_every=setting.evaluate_every,
        validation_windows=setting.validation_windows,
        step_seconds=setting.step_seconds,
        width=setting.width,
        layers=setting.layers,
    )


def _look(watch: Watch, screen: Screen) -> None:
    standing, lines = watch.look()
    for line in lines:
        screen.say(line)
    if standing is not None:
        screen.stands(standing)


def _until_archived(client: "Client", run_id: str, setting: Setting, watch: Watch, screen: Screen) -> None:
    """The ranks are gone; the governor's last word and the archive's last rows may still be on their way."""
    screen.busy("waiting for the archive…")
    deadline = time.monotonic() + ARCHIVE_SECONDS
    while not is_complete(client, run_id, setting.ranks):
        if time.monotonic() > deadline:
            raise LoopOpen(f"the archive did not see the end of {run_id} within {ARCHIVE_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    _look(watch, screen)
