"""History through the same core: the decisions that a log leads to.

`replay` of the archived log of a run gives exactly the decisions on the control topic; where it does not, the core
has changed, or the history is not whole. Called by the CLI and by tests over committed histories.
"""

from collections.abc import Iterable, Iterator

from ..events.union import AnyDecision, Record
from .fold import fold
from .run_state import new_state


def replay(run_id: str, records: Iterable[Record]) -> Iterator[AnyDecision]:
    """The decisions for one run's records (its facts and its partition's Ticks), in log order.

    Records that are missing from the history count as lost for good: a replay cannot look again.
    """
    state = new_state(run_id)
    for record in records:
        folded = fold(state, record, accept_gap=True)
        state = folded.state
        yield from folded.decisions
