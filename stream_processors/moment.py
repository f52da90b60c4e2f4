"""How a run stands after its log: what a policy's rules would be asked about now.

Called by `pilothouse policy explain --run`. The log is folded as the governor folds it; nothing is decided here.
"""

from collections.abc import Iterable

from ..events.envelope import LogPlace
from ..events.union import Record
from ..governance.desk import Desk, Header
from ..governance.policy_standing import Moment
from . import judging
from .fold import fold
from .run_state import RunState, new_state


def state_after(run_id: str, records: Iterable[Record]) -> RunState:
    """The state of a run after these records, in log order; what is missing among them is lost for good."""
    state = new_state(run_id)
    for record in records:
        state = fold(state, record, accept_gap=True).state
    return state


def moment_of(state: RunState) -> Moment:
    """What rules are decided by, as the run stands."""
    desk = Desk(Header(state.run_id, "", 0, state.policy_hash), LogPlace(0, 0, 0), {})
    situation = judging.situation(state, desk)
    return Moment(state.ledger, situation.facts, situation.steers, situation.tick)
