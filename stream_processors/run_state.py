"""The state of one run as the fold carries it: everything a decision depends on that is not in the record at hand.

Plain structs, written to msgpack by the governor after every half second and read back when it starts; bounded in
bytes whatever the run does (`MAX_STATE_BYTES` at `MAX_RANKS` ranks, a property test holds it to that). Nothing here
knows where records come from.
"""

import msgspec

from ..events.decisions import ConditionType, Phase
from ..governance.conditions import JUDGED, Condition
from ..governance.incidents import Incident
from ..governance.interventions import Ledger
from ..governance.recovery import Candidate
from ..governance.score import Score
from ..governance.verification import Receipt
from .detectors.hang import HangState
from .detectors.inputs import InputState
from .detectors.spread import Spread
from .features import FeatureState

MAX_STATE_BYTES = 256 * 1024
MAX_RANKS = 1_000
MAX_WRITERS = 2_048
"""Writers whose last sequence number is remembered; the one that was silent for longest is forgotten first."""
MAX_TICKERS = 8
MAX_LOST = 2**53
"""Where the count of lost records stops: a writer may number its records as it likes."""
MAX_PENDING = 224
"""Steps that may wait for slow ranks; beyond it the oldest is judged without them."""
MAX_EARLY = 2
"""Attempts gathered ahead of the current one."""
EARLY_PENDING = 40
"""Steps that may wait in an attempt that is not the current one yet."""
MAX_COMPARED = 64
"""Waiting steps of an attempt at which ranks are compared with each other; not at those beyond."""
HELD_BYTES = 6_000
PAST_ATTEMPTS = 16
SAMPLED_RANKS = 4
"""A step's means are taken over the reporting ranks with the lowest numbers: mergeable in any order, and bounded."""


class PendingStep(msgspec.Struct, array_like=True):
    """One step that not every live rank has reported yet. `losses` and `norms` hold (rank, value) of the lowest ranks
    that told one, sorted; `told` is what rank 0 said beside, in the order of `events.metric_names.TOLD`; `spreads` is
    what the ranks say side by side, None where they are not compared. `bad` has the lowest rank whose loss is not
    finite, or, behind True, whose gradient norm alone is not.
    """

    at: int
    first_tick: int
    ranks: int = 0
    nonfinite: int = 0
    nonfinite_losses: int = 0
    told: tuple[float | None, ...] = ()
    losses: list[tuple[int, float]] = []
    norms: list[tuple[int, float]] = []
    spreads: dict[int, Spread] | None = None
    bad: tuple[bool, int] | None = None


class SavedCheckpoint(msgspec.Struct, frozen=True, tag=True):
    """A checkpoint that was announced for a step which is not judged yet."""

    candidate: Candidate


class LostCheckpoint(msgspec.Struct, frozen=True, tag=True):
    """A checkpoint that cannot be gone back to any more: it failed its verification, or was `rotated` away."""

    checkpoint_id: str
    reason: str
    rotated: bool


class Restored(msgspec.Struct, frozen=True, tag=True):
    """The run went back to a checkpoint, at this price."""

    seconds_lost: float


class NewRecipe(msgspec.Struct, frozen=True, tag=True):
    """The trainer announced a change of recipe; `values` are those of it that interventions change too."""

    what: str = ""
    values: dict[str, float] = {}


class Evaluated(msgspec.Struct, frozen=True, tag=True):
    """A validation loss, of one of the splits that the run evaluates on."""

    val_loss: float
    split: str = ""


Told = SavedCheckpoint | LostCheckpoint | Restored | NewRecipe | Evaluated | Receipt


class Held(msgspec.Struct):
    """What rank 0 told about a step, waiting until that step is judged: facts take effect in the order of steps."""

    step: int
    at: int
    told: Told


class Attempt(msgspec.Struct):
    """One lineage of steps. `high` is the last step of each rank; `started` turns true with rank 0's RunStarted.
    `watermark` is the last step that every live rank has reached, `behind` how many of them went no further. `stage` is
    what rank 0 does, `moved` whether it ever did anything else. `undecided` says that the run may yet go back to any
    checkpoint of the attempts before, which judged steps up to `reached`: a process that starts may restore one before
    its first step. `late` counts the rows that came when their step had been judged without them.
    """

    attempt_id: str
    attempt: int
    started: bool = False
    started_tick: int = 0
    reason: str = ""
    first_step: int = 0
    world_size: int = 1
    steers: tuple[str, ...] = ()
    values: dict[str, float] = {}
    high: dict[int, int] = {}
    lagging: list[int] = []
    watermark: int = -1
    behind: int = 0
    judged: int = -1
    pending: dict[int, PendingStep] = {}
    held: list[Held] = []
    rows_back: int = 0
    stage: str = "train"
    moved: bool = False
    undecided: bool = False
    reached: int = -1
    late: int = 0
    end: tuple[int, int, str] | None = None


class RunState(msgspec.Struct):
    """Everything known of a run.

    `early` gathers the next attempts until the current one is done with; those that rank 0 announced stand first, in
    the order of their announcement. `positions` and `tickers` hold the last number of each writer, `past` the attempts
    that are over, all by `admission.short`. `asleep` are the tickers that an ended run stopped following; `outcome` is
    why it ended. `lost_records` were never in the log, `lost` counts those and what trainers say they could not keep.
    `ranks_past` is what `rank_rows` remembers of each rank. `settled` says that the run is well, that nothing is open,
    and that no rule held when all were asked last; `good_step` is that of the last good checkpoint, -1 without one.
    """

    run_id: str
    policy_text: str = ""
    policy_hash: str = ""
    ended: bool = False
    outcome: str = ""
    current: Attempt | None = None
    early: list[Attempt] = []
    ranks_past: bytearray = msgspec.field(default_factory=bytearray)
    past: list[str] = []
    positions: dict[str, int] = {}
    tickers: dict[str, int] = {}
    asleep: list[str] = []
    tick: int = 0
    tick_at: int = 0
    heard_tick: int = 0
    stage: str = "prepare"
    lost_records: int = 0
    lost: int = 0
    assessed_step: int = -1
    phase: Phase = "Unknown"
    margin: float | None = None
    settled: bool = False
    last_features: dict[str, float] = {}
    conditions: dict[ConditionType, Condition] = msgspec.field(
        default_factory=lambda: {name: Condition(name) for name in JUDGED}
    )
    features: FeatureState = msgspec.field(default_factory=FeatureState)
    hang: HangState = msgspec.field(default_factory=HangState)
    inputs: InputState = msgspec.field(default_factory=InputState)
    score: Score = msgspec.field(default_factory=Score)
    candidates: list[Candidate] = []
    good_step: int = -1
    incident: Incident | None = None
    ledger: Ledger = msgspec.field(default_factory=Ledger)
    ordinals: dict[str, int] = {}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(RunState).decode


def new_state(run_id: str) -> RunState:
    """The state of a run nobody has told us anything about."""
    return RunState(run_id)


def dump_state(state: RunState) -> bytes:
    """The state's bytes; `load_state` gives back an equal one."""
    return _encode(state)


def load_state(body: bytes) -> RunState:
    """The state of `dump_state`. What it was written without has its default; a condition that was not judged then is
    not known.

    Raises:
        msgspec.DecodeError: the bytes are not a state of this version (a subclass, `ValidationError`, included).
    """
    state = _decode(body)
    if len(state.conditions) < len(JUDGED):
        state.conditions = {name: state.conditions.get(name) or Condition(name) for name in JUDGED}
    return state
