"""What trackers' users call things, and what Pilothouse calls them: which series is the loss, which are evaluations.

Pure; called by `arranging` and `survey`. The core judges by a few exact names (`events.metric_names`); a log's own
name for one of them is replaced, and said in `RunStarted.environment`. All other names stay as they are.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from ...events.metric_names import GRAD_NAMES, LOSS_NAMES, LR_NAMES, TOLD

KNOWN = {"loss": LOSS_NAMES, "grad_norm": GRAD_NAMES, "lr": LR_NAMES, "throughput": TOLD["throughput"]}
"""By our name, the names the core knows already."""

LIKELY = {
    "loss": (
        *("loss", "train loss", "training loss", "loss train", "loss training", "train loss step", "loss step"),
        *(
            "train loss epoch",
            "loss epoch",
            "train total loss",
            "total loss",
            "loss total",
            "batch loss",
            "losses loss",
        ),
        *("train batch loss", "epoch loss", "train nll", "nll", "objective", "train objective"),
    ),
    "grad_norm": (
        *("grad norm", "train grad norm", "gradient norm", "train gradient norm", "global grad norm", "gradnorm"),
        *("train global grad norm", "grad norm total", "total grad norm", "grad 2 norm total", "grads norm"),
        *("optim grad norm", "train grad norm step", "grad norm step", "total norm"),
    ),
    "lr": (
        *("lr", "learning rate", "train lr", "train learning rate", "optim lr", "optimizer lr", "lr step"),
        *("epoch learning rate", "train learning rate step"),
    ),
    "throughput": (
        *("throughput", "tokens per second", "tokens per sec", "samples per second", "samples per sec"),
        *("train samples per second", "train tokens per second", "train throughput", "tps", "iterations per second"),
        *("examples per second", "images per second", "perf throughput"),
    ),
}
"""By our name, what else it is often called, lower case and with a space between words; the likeliest first."""

_EVALUATED = re.compile(r"^(eval|evaluation|val|valid|validation|dev|test)[_./ -]+(.+)$", re.IGNORECASE)
_EVALUATED_LAST = re.compile(r"^(.+)[_./ -]+(eval|evaluation|val|valid|validation|dev|test)$", re.IGNORECASE)
OTHER_AXIS = "other axis"
"""The split of a series that counts something else than steps: kept, and not judged."""


class Naming(NamedTuple):
    """`renamed`: ours by theirs; `aside`: names whose steps are not those of the others."""

    renamed: Mapping[str, str] = {}
    aside: frozenset[str] = frozenset()


class Place(NamedTuple):
    """Where a value belongs: an evaluation's `split` (empty: none, it is the training's own), and its name there."""

    split: str
    name: str


def renaming(names: Iterable[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """Ours by theirs, for those that need another name. `wanted` is what a person said, theirs by ours, and wins."""
    present = list(names)
    renamed = {theirs: ours for ours, theirs in wanted.items()}
    taken = set(wanted)
    for ours, exact in KNOWN.items():
        if ours in taken or any(name in present and name not in renamed for name in exact):
            continue
        found = _likeliest([name for name in present if name not in renamed], LIKELY[ours])
        if found is None and ours == "lr":  # Lightning's monitor names the optimizer: lr-AdamW, lr-AdamW/pg1
            found = next((name for name in present if re.match(r"lr-\w", name) and name not in renamed), None)
        if found is not None:
            renamed[found] = ours
    return renamed


def _likeliest(names: Iterable[str], likely: tuple[str, ...]) -> str | None:
    ranked = sorted((likely.index(words), name) for name in names if (words := _words(name)) in likely)
    return ranked[0][1] if ranked else None


def _words(name: str) -> str:
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.split(r"[\s_./:-]+", split.strip())).lower()


def place_of(name: str, naming: Naming) -> Place:
    """Where a value of this name belongs."""
    ours = naming.renamed.get(name)
    if ours == "val_loss":
        return Place("validation", "loss")
    if ours is None and name in naming.aside:
        return Place(OTHER_AXIS, name)
    if ours is not None:
        return Place("", ours)
    if found := _EVALUATED.match(name):
        return Place(_split(found[1]), _loss_or(found[2]))
    if found := _EVALUATED_LAST.match(name):
        return Place(_split(found[2]), _loss_or(found[1]))
    return Place("", name)


def _loss_or(name: str) -> str:
    return "loss" if name.lower() == "loss" else name


def _split(word: str) -> str:
    return "test" if word.lower() == "test" else "validation"
