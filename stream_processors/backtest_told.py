"""A backtest's result for programs and people: as plain data, and what it cannot know. Pure."""

from collections import Counter
from dataclasses import fields, is_dataclass
from typing import Any

from .backtest import Backtest


def as_told(found: Backtest) -> dict[str, Any]:
    """One run's result as plain data."""
    told: dict[str, Any] = plain(found)
    return told | {"cannot_know": cannot_know(found)}


def plain(value: Any) -> Any:
    """Counters in the order of their names, so that the same result is the same text. (`asdict` cannot copy them.)"""
    if is_dataclass(value):
        return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
    match value:
        case Counter():
            return dict(sorted(value.items()))
        case dict():
            return {name: plain(item) for name, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return value


def cannot_know(found: Backtest) -> list[str]:
    """What this backtest cannot know, for a person."""
    lines = []
    if found.open_loop_from is not None:
        lines.append(
            f"open loop from step {found.open_loop_from}: there the new policy does what was not done, or does not do "
            "what was; what the run would have told behind it nobody knows"
        )
    if waiting := found.candidate.sound.waiting:
        lines.append(f"{waiting} proposals wait for a person, who is not asked again: their timeout answered")
    if found.told != found.redecided:
        lines.append(
            f"{found.told - found.redecided} of {found.told} decisions that were told are not taken again by today's "
            "core, which judged both policies: see `pilothouse replay`"
        )
    if found.faults:
        lines.append(f"the core stumbled {found.faults} times and judged anew from there")
    return lines
