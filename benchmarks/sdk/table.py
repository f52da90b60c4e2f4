"""From the blocks of a contestant to its row, and from the rows to what is printed. Pure."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

MICROS = 1e6


class Row(NamedTuple):
    """Microseconds. `tax_us` is what a 2 ms step takes longer with the call than without, `cpu_us_per_step` what all
    threads and processes use for it, on the cold caches of such steps; `hot_cpu_us` the same for calls in a loop.
    """

    name: str
    p50_us: float
    p99_us: float
    cold_p50_us: float
    cold_p99_us: float
    tax_us: float
    cpu_us_per_step: float
    hot_cpu_us: float = 0.0


def row_of(name: str, blocks: Mapping[str, Sequence[dict[str, Any]]]) -> Row:
    """Percentiles over all calls; the tax is the median over pairs of neighbouring blocks."""
    hot = sorted(took for block in blocks["hot"] for took in block["took_ns"])
    cold = sorted(took for block in blocks["logged"] for took in block["took_ns"])
    pairs = zip(blocks["logged"], blocks["plain"], strict=True)
    taxes = [(_step_seconds(logged) - _step_seconds(plain)) * MICROS for logged, plain in pairs]
    cpu = sum(block["cpu_s"] for block in blocks["logged"]) / len(cold) * MICROS
    p50, p99, cold_p50, cold_p99 = (_percentile(took, at) for took in (hot, cold) for at in (50, 99))
    hot_cpu = sum(block["cpu_s"] for block in blocks["hot"]) / len(hot) * MICROS
    return Row(name, p50, p99, cold_p50, cold_p99, median(taxes), cpu, hot_cpu)


def _step_seconds(block: Mapping[str, Any]) -> float:
    return float(block["wall_s"]) / len(block["took_ns"])


def _percentile(ordered: Sequence[int], at: int) -> float:
    return ordered[min(len(ordered) - 1, len(ordered) * at // 100)] / 1_000


def lines(rows: Sequence[Row], releases: Mapping[str, str]) -> list[str]:
    """The table."""
    names = ("p50", "p99", "cold p50", "cold p99", "tax", "CPU/step", "hot CPU")
    head = f"{'':26}" + "".join(f"{name:>10}" for name in names) + "   microseconds"
    body = [
        f"{row.name:26}" + "".join(f"{value:10.1f}" for value in row[1:]) + f"   {releases.get(row.name, '')}".rstrip()
        for row in rows
    ]
    return [head, *body]


def ratios(ours: Row, trackers: Sequence[Row]) -> list[str]:
    """How many times the cheapest of the trackers costs, figure by figure; the tax only where it is above nothing."""
    said = []
    for field, what in (
        ("p50_us", "p50"),
        ("cold_p50_us", "cold p50"),
        ("tax_us", "tax"),
        ("cpu_us_per_step", "CPU per step"),
    ):
        best = min(trackers, key=lambda row: float(getattr(row, field)))
        mine, its = float(getattr(ours, field)), float(getattr(best, field))
        if mine > 0 and its > 0:
            said.append(f"{what}: {its / mine:.0f} times less than {best.name}")
        else:
            said.append(f"{what}: under the noise of the harness; {best.name}: {its:.0f} µs")
    return said
