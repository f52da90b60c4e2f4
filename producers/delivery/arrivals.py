"""Numbers that arrive later than their row: the values of GPU scalars, read when their copy is done.

Called by `delivery.outbox` on its thread, for entries that carry some (`metrics.values` makes them). An entry waits
for its numbers for a bounded time, and everything behind it waits with it, for order is kept; then it goes without
those that did not come.
"""

from collections.abc import Mapping

from ..bad_calls import BadCalls
from ..metrics.values import Number
from ..plain import why
from .batching import Entry, Told

DEVICE_MICROS = 5_000_000
"""How long an entry waits."""


def has_arrived(entry: Entry, now: int) -> bool:
    """Whether the entry need not wait any longer; `now` in microseconds UTC."""
    if not entry.deferred or now - entry.at > DEVICE_MICROS:
        return True
    try:
        return all(number.ready() for number in entry.deferred)
    except Exception:  # noqa: BLE001  # a device in error answers like this for good; reading says so, once
        return True


def with_numbers(entry: Entry, bad_calls: BadCalls) -> Entry | None:
    """The entry with plain numbers in place of those on their way; None where nothing is left of a row."""
    if not entry.deferred:
        return entry
    if isinstance(entry, Told):
        metrics = _read(entry.fields["metrics"], bad_calls)
        return entry._replace(fields={**entry.fields, "metrics": metrics}, deferred=())
    metrics = _read(entry.metrics, bad_calls)
    return entry._replace(metrics=metrics, deferred=()) if metrics else None


def _read(metrics: Mapping[str, Number | None], bad_calls: BadCalls) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, number in metrics.items():
        try:
            if number is None:
                continue
            if isinstance(number, float | int):
                numbers[name] = number
            elif number.ready():
                numbers[name] = number.value()
            else:
                bad_calls.add("device_value", f"metric {name!r} did not arrive from its device in time", "outbox")
        except Exception as error:  # noqa: BLE001  # whatever a device's driver raises, the other metrics are good
            bad_calls.add("device_value", f"reading metric {name!r} from its device: {why(error)}", "outbox")
    return numbers
