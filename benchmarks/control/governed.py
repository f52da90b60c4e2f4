"""Who governs a training: nobody, the fold in its process, or a whole stack through Kafka. One face for the loop."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from pilothouse.events.actions import Action
from pilothouse.events.decisions import ConditionChanged, InterventionIssued
from pilothouse.events.envelope import TrainerFact
from pilothouse.events.telemetry import InterventionReceipt, Outcome, Stage
from pilothouse.events.union import AnyDecision
from pilothouse.producers.checkpoints.store import Checkpoints
from pilothouse.producers.delivery.kafka import send_fact
from pilothouse.producers.ranks.ballots import LocalBallots
from pilothouse.producers.ranks.context import Identity
from pilothouse.producers.run import Run
from pilothouse.producers.start import start_run
from pilothouse.producers.steering.pilot import Pilot, open_links
from pilothouse.producers.steering.safe_point import Links
from pilothouse.producers.teller import Teller
from pilothouse.settings import Settings
from pilothouse.stream_processors.policy_text import PolicyText
from pilothouse.stream_processors.replay import Proof

from .beside import Blocking
from .late import Late
from .recipe import Row, Task

if TYPE_CHECKING:
    from .training import Waits

ARCHIVE_SECONDS = 120.0
LOOK_EVERY = 0.3
MOST_SAID = 2_000
Evict = Callable[[int], object]


class Governed(Protocol):
    """What the loop says to whoever governs it, if anybody does."""

    steers: bool

    def pilot(
        self, model: Any, optimizer: Any, scheduler: Any, folder: Checkpoints | None, evict: Evict
    ) -> AbstractContextManager[Pilot]:
        """The pilot of this training."""

    def log(self, step: int, told: Sequence[dict[str, float]]) -> None:
        """The metrics of one update, of each rank."""

    def evaluated(self, step: int, loss: float) -> None:
        """A validation loss."""

    def at(self, update: int, step: int) -> None:
        """So many updates are done."""

    def over(self, step: int) -> None:
        """That was the last one."""

    def timed(self, waits: "Waits") -> AbstractContextManager[None]:
        """Around a call of ours: what of it the training waited for."""

    def conclude(self, row: Row, task: Task) -> None:
        """Enter what became of it."""


@contextmanager
def governed(task: Task, settings: Settings | None) -> Iterator[Governed]:
    """Whoever governs this task. Through Kafka, `settings` are those of a stack that is up."""
    match task.arm.governed:
        case "":
            yield Alone(task)
        case "process":
            yield InProcess(task)
        case "kafka":
            assert settings is not None  # whoever asks for it has started a stack
            yield ThroughKafka(task, settings)


class Alone:
    """Nobody: what is told is told to nobody, and nothing is ever commanded."""

    steers = False

    def __init__(self, task: Task) -> None:
        self._run = _Unheard(task)

    def pilot(
        self, model: Any, optimizer: Any, scheduler: Any, _: Checkpoints | None, __: Evict
    ) -> AbstractContextManager[Pilot]:
        nobody = Links(LocalBallots())
        made = Pilot(self._run, model, optimizer, scheduler=scheduler, settings=Settings(), links=lambda *_: nobody)
        return _closing(made)

    def log(self, step: int, told: Sequence[dict[str, float]]) -> None: ...
    def evaluated(self, step: int, loss: float) -> None: ...
    def at(self, update: int, step: int) -> None: ...
    def over(self, step: int) -> None: ...
    def conclude(self, row: Row, task: Task) -> None: ...

    def timed(self, _: "Waits") -> AbstractContextManager[None]:
        return nullcontext()


class InProcess:
    """The fold between the steps. Its answers may come late all the same, or get lost."""

    steers = True

    def __init__(self, task: Task) -> None:
        arm = task.arm
        self._run = Blocking(f"{task.experiment}-{task.seed}", arm.policy, task.recipe.ranks)
        self._late = Late(self._run, arm.late_steps, arm.lost_share, task.seed)
        self._fault_at = task.recipe.fault_at
        self._alarm_at: int | None = None
        self._updates = 0

    def pilot(
        self, model: Any, optimizer: Any, scheduler: Any, folder: Checkpoints | None, evict: Evict
    ) -> AbstractContextManager[Pilot]:
        ours = Links(LocalBallots(), self._late)
        return _closing(
            Pilot(
                self._run,
                model,
                optimizer,
                scheduler=scheduler,
                checkpoints=folder,
                evict=evict,
                settings=Settings(),
                links=lambda *_: ours,
            )
        )

    def log(self, step: int, told: Sequence[dict[str, float]]) -> None:
        known = len(self._run.decisions)
        self._run.log(step, told)
        self._note_alarm(self._run.decisions[known:])
        self._updates += 1

    def _note_alarm(self, decisions: Sequence[AnyDecision]) -> None:
        """When a condition first failed behind the fault."""
        if self._alarm_at is None and self._updates >= self._fault_at and any(map(_is_alarm, decisions)):
            self._alarm_at = self._updates

    def evaluated(self, step: int, loss: float) -> None:
        self._run.evaluated(step, loss)

    def at(self, update: int, step: int) -> None:
        self._late.at(update, step)

    def over(self, step: int) -> None:
        self._run.ended(step)

    def timed(self, waits: "Waits") -> AbstractContextManager[None]:
        return waits.whole()

    def conclude(self, row: Row, task: Task) -> None:
        _enter(row, self._run.decisions, self._run.applied, self._late)
        row.replayed = self._run.replays()
        if task.recipe.fault and self._alarm_at is not None:
            row.detect_steps = self._alarm_at - self._fault_at


class ThroughKafka:
    """The SDK, the broker, the governor and the archive; the training waits for none of them."""

    steers = True

    def __init__(self, task: Task, settings: Settings) -> None:
        self._task, self._settings = task, settings
        self._run_id = f"control-{task.seed}-{uuid4().hex[:8]}"
        self._late: Late | None = None
        self._run: Run | None = None

    @contextmanager
    def pilot(
        self, model: Any, optimizer: Any, scheduler: Any, folder: Checkpoints | None, evict: Evict
    ) -> Iterator[Pilot]:
        policy = PolicyText("control", self._task.arm.policy)
        send_fact(self._settings, policy.activated(self._run_id, time.time_ns() // 1_000))
        with start_run(
            "control", run_id=self._run_id, settings=self._settings, config={"arm": self._task.arm.name}
        ) as run:
            self._run = run
            yield run.pilot(model, optimizer, scheduler=scheduler, checkpoints=folder, evict=evict, links=self._links)

    def _links(self, run: Teller, settings: Settings) -> Links:
        links, arm = open_links(run, settings), self._task.arm
        assert links.commands is not None  # this is rank 0
        self._late = Late(links.commands, arm.late_steps, arm.lost_share, self._task.seed)
        return Links(links.ballots, self._late)

    def log(self, step: int, told: Sequence[dict[str, float]]) -> None:
        assert self._run is not None
        self._run.log(step, **told[0])

    def evaluated(self, step: int, loss: float) -> None:
        assert self._run is not None
        self._run.evaluated(step, loss=loss)

    def at(self, update: int, step: int) -> None:
        assert self._late is not None
        self._late.at(update, step)

    def over(self, step: int) -> None: ...

    def timed(self, waits: "Waits") -> AbstractContextManager[None]:
        return waits.watched()

    def conclude(self, row: Row, task: Task) -> None:
        """By what the archive knows, once it knows the run's end."""
        from pilothouse.cli.demo.account import is_complete
        from pilothouse.cli.replay_command import proved
        from pilothouse.events.codec import from_json
        from pilothouse.storage.connect import connect
        from pilothouse.storage.history import decisions_in_order
        from pilothouse.storage.queries import events_of

        client = connect(self._settings)
        deadline = time.monotonic() + ARCHIVE_SECONDS
        while not is_complete(client, self._run_id, task.recipe.ranks):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the archive did not see the end of {self._run_id} within {ARCHIVE_SECONDS:g} s")
            time.sleep(LOOK_EVERY)
        told = [
            from_json(known["body"])
            for known in events_of(client, self._run_id, kinds=["intervention_receipt"], limit=1_000)
        ]
        applied = {
            one.intervention_id for one in told if isinstance(one, InterventionReceipt) and one.outcome == "applied"
        }
        assert self._late is not None
        _enter(row, decisions_in_order(client, self._run_id), applied, self._late)
        proof = proved(client, self._run_id, _unseen)
        while not _is_whole(proof) and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)  # the archive has one half of the log and not yet the other
            proof = proved(client, self._run_id, _unseen)
        row.replayed = _is_whole(proof)
        row.not_replayed = "" if row.replayed else str(proof)[:MOST_SAID]


class _Unheard:
    """A run that nobody hears."""

    def __init__(self, task: Task) -> None:
        self.identity = Identity(f"{task.experiment}-{task.seed}", "none", 1, 0, 1)

    def tell(self, fact: type[TrainerFact], **fields: Any) -> None: ...
    def begin_attempt(self, *_: Any, **__: Any) -> Identity:
        return self.identity

    def stage(self, stage: Stage, step: int | None = None) -> None: ...
    def steers(self, *_: object) -> None: ...
    def ending(self, outcome: Outcome) -> None: ...
    def timed(self, loader: Any) -> Any:
        return loader


def _enter(row: Row, decisions: Sequence[AnyDecision], applied: set[str], late: Late) -> None:
    issued = [
        known for known in decisions if isinstance(known, InterventionIssued) and known.intervention_id in applied
    ]
    row.interventions = len(issued)
    row.actions = [f"{known.step}: {in_short(known.action)}" for known in issued]
    row.lost_commands = late.lost
    row.late_steps = statistics.fmean(late.lags) if late.lags else None


def in_short(action: Action) -> str:
    """One action in few words."""
    match action.action:
        case "rollback":
            return f"rollback to {action.checkpoint.step if action.checkpoint else '?'}, lr x{action.lr_factor:g}"
        case "set_dropout" | "set_weight_decay" | "set_clip":
            return f"{action.action} {action.value:g}"
        case "scale_lr":
            return f"lr x{action.factor:g}"
        case "evict_rank":
            return f"evict rank {action.rank}"
        case other:
            return other


def _is_whole(proof: Proof) -> bool:
    return proof.difference is None and proof.same == proof.told and not proof.untold


def _unseen(_what: str, _done: float, _total: float | None) -> None:
    """Nobody watches how far a proof is."""


def _is_alarm(decision: AnyDecision) -> bool:
    return (
        isinstance(decision, ConditionChanged)
        and decision.status == "False"
        and decision.condition in ("Finite", "Stable", "Synchronized")
    )


@contextmanager
def _closing(pilot: Pilot) -> Iterator[Pilot]:
    try:
        yield pilot
    finally:
        pilot.close()
