"""The three experiments: which arms train on what. Tasks only; nothing is trained here.

The seeds that are reported begin at 0; recipes and the policy were chosen on seeds from 100.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from pilothouse.governance.policy import dump_policy, load_policy

from .faults import FAULTS
from .recipe import Arm, Recipe, Task

POLICY = Path(__file__).with_name("policy.yaml")

OVERFITTING = Recipe(
    steps=260, width=208, layers=2, heads=4, training_chars=1_000, learning_rate=2.5e-3, batch_size=8, length=32,
    evaluate_every=8,
)  # fmt: skip
"""1.1 million parameters on 1,000 characters."""
STATIC = ((0.3, 0.01), (0.5, 0.01), (0.5, 1.0))
"""Dropout and weight decay of the grid."""
LATE = (0, 1, 5, 20)
LOST = 0.1

REFERENCE = 3e-3
STRESS = Recipe(
    steps=220, width=64, layers=2, heads=4, training_chars=200_000, learning_rate=REFERENCE, batch_size=8,
    evaluate_every=10, validation_windows=16, stress_from=80,
)  # fmt: skip
RATES = (REFERENCE, 3e-2, 1e-1, 3e-1, 1.0)

FAULTY = Recipe(
    steps=200, width=64, layers=1, heads=4, training_chars=200_000, learning_rate=3e-3, batch_size=2, ranks=4, clip=0.0,
    length=32, validation_windows=32, fault_at=105,
)  # fmt: skip
CLEAN = "none"
"""The setting without a fault: what the others are measured by."""

FIXED, NOTHING = "fixed recipe", "nothing"
PLATEAU, EAGER_PLATEAU = "ReduceLROnPlateau, as it comes", "ReduceLROnPlateau, tuned"
BLOCKING, WITHOUT_ROLLBACK = "ours, blocking", "ours, blocking, without rollback"


@cache
def policy_text() -> str:
    return POLICY.read_text(encoding="utf-8")


@cache
def without_rollback() -> str:
    """The same policy, with all that goes back taken out of its ladders."""
    policy = load_policy(policy_text())
    rules = []
    for rule in policy.rules:
        left = tuple(action for action in rule.actions if action.action != "rollback")
        rules += [rule.model_copy(update={"actions": left})] if left else []
    return dump_policy(policy.model_copy(update={"rules": tuple(rules), "tests": ()}))


def overfitting(seeds: Iterable[int], recipe: Recipe = OVERFITTING) -> Iterator[Task]:
    """Constant, three schedules, a grid, ours in several places."""
    for seed in seeds:
        yield Task("overfitting", "", seed, recipe, Arm("constant"))
        yield Task("overfitting", "", seed, replace(recipe, schedule="cosine"), Arm("cosine"))
        yield Task("overfitting", "", seed, replace(recipe, schedule="plateau"), Arm(PLATEAU))
        yield Task("overfitting", "", seed, replace(recipe, schedule="eager plateau"), Arm(EAGER_PLATEAU))
        for dropout, decay in STATIC:
            static = replace(recipe, dropout=dropout, weight_decay=decay)
            yield Task("overfitting", "", seed, static, Arm(f"static: dropout {dropout:g}, decay {decay:g}"))
        yield Task("overfitting", "", seed, recipe, Arm(BLOCKING, governed="process", policy=policy_text()))
        yield Task(
            "overfitting", "", seed, recipe, Arm(WITHOUT_ROLLBACK, governed="process", policy=without_rollback())
        )
        for late in LATE:
            arm = Arm(through_kafka(late), governed="kafka", policy=policy_text(), late_steps=late, lost_share=LOST)
            yield Task("overfitting", "", seed, recipe, arm)


def through_kafka(late: int) -> str:
    return f"ours, Kafka, {late} steps late, {LOST:.0%} of answers lost"


def learning_rates(seeds: Iterable[int], recipe: Recipe = STRESS) -> Iterator[Task]:
    """The fixed recipe and the governed one at every rate."""
    for seed in seeds:
        for rate in RATES:
            at = replace(recipe, stress=rate / REFERENCE)
            yield Task("learning rates", f"{rate:g}", seed, at, Arm(FIXED))
            ours = Arm(BLOCKING, governed="process", policy=policy_text())
            yield Task("learning rates", f"{rate:g}", seed, at, ours)


def faults(seeds: Iterable[int], recipe: Recipe = FAULTY) -> Iterator[Task]:
    """Each fault under each rule. Stopping needs no training of its own: it is what happens to `nothing`."""
    arms = [
        Arm(NOTHING),
        Arm("gradient clipping", peer="clip"),
        Arm("ZClip", peer="zclip"),
        Arm("skip-step at 6 sigma", peer="skip"),
        Arm(BLOCKING, governed="process", policy=policy_text()),
    ]
    for seed in seeds:
        yield Task("faults", CLEAN, seed, recipe, arms[0])
        yield Task("faults", CLEAN, seed, recipe, arms[4])
        for fault in FAULTS:
            for arm in arms:
                yield Task("faults", fault, seed, replace(recipe, fault=fault), arm)


EXPERIMENTS = {"overfitting": overfitting, "learning-rates": learning_rates, "faults": faults}
