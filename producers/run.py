"""A run as its training script sees it: `with pilothouse.start_run("gpt-small", config=cfg) as run: run.log(step,
loss=loss)`.

The first file on an event's way out of the rank. Every method that a training loop calls only appends to
`producers.outbox`, costs microseconds, and never raises: what is wrong with a call is said once in the log
`pilothouse`, with the line that made it, and counted. What steers the trainer is `producers.pilot`, which tells its
receipts by `Run.tell`.
"""

import atexit
import logging
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, SupportsIndex, Unpack

from ..events.actions import ActionKind
from ..events.envelope import TrainerFact, derived_attempt_id
from ..events.telemetry import AttemptReason, EvalCompleted, Outcome, RunEnded, RunStarted, Stage, StageChanged
from ..settings import Settings, load_settings
from .accounts import Counts
from .batching import Row, Told
from .context import (
    Identity,
    Lineage,
    first_identity,
    git_commit,
    host,
    known_run_id,
    place_of,
    read_lineage,
    restarts,
    script_folder,
)
from .description import Description, described, name_label, refuse_mistakes
from .ending import Ending, ending_of, last_words
from .heartbeat import interval_at_scale
from .kafka import KafkaSender
from .outbox import Outbox, Pace
from .plain import shown
from .publisher import Publisher
from .signals import Preemption
from .spool import Spool, spool_folder
from .telling import OUTCOMES, REASONS, STAGES, Word, known_word, refusal, trimmed
from .values import Admission

if TYPE_CHECKING:
    from .pilot import Pilot

logger = logging.getLogger("pilothouse")


class Run:
    """One writer of one run: this process. Made by `start_run`; `identity` changes with `begin_attempt`."""

    def __init__(self, identity: Identity, settings: Settings, description: Mapping[str, Any], outbox: Outbox) -> None:
        self.settings = settings
        self.identity = identity
        self._description = dict(description)
        self._outbox = outbox
        self._publisher = Publisher(outbox, interval_at_scale(settings.producer_flush_seconds, *identity[3:]))
        self._admission = outbox.admission
        self._preemption = Preemption()
        self._started: dict[str, Any] = {}
        self._outcome: Outcome = "completed"
        self._closed = False
        self._pilots: list[Pilot] = []

    # ------------------------------------------------------------------------------------ what a training loop calls

    def log(self, step: SupportsIndex | None = None, /, *unexpected: object, **metrics: Any) -> None:
        """Publish the metrics of one step: `run.log(step, loss=loss, grad_norm=norm)`.

        A metric is a real number, or a NumPy value or tensor with one element; NaN and infinities are welcome. A tensor
        on a GPU is copied asynchronously. Steps may repeat and go back: all is kept, and of one step the first call of
        each rank is what the run is judged by, so give `loss` and `grad_norm` in one call.
        """
        # Floats and ints are appended as they are; the rest of the work is another thread's. After a training step each
        # object that is touched here is a cache miss or two, so there are few.
        outbox = self._outbox
        if type(step) is int and 0 <= step < STEP_LIMIT and len(metrics) in outbox.widths and not unexpected:
            for value in metrics.values():
                kind = type(value)
                if kind is not float and (kind is not int or not -PLAIN_INT < value < PLAIN_INT):
                    break
            else:
                if len(outbox.queue) < outbox.room:
                    outbox.step = step
                    outbox.queue.append((self.identity, time_ns(), step, metrics))
                    return
        self._look_at(step, unexpected, metrics)

    def _look_at(self, step: object, unexpected: tuple[object, ...], metrics: dict[str, Any]) -> None:
        """What `log` does with any other call: a first name, a tensor, a mistake, a long queue, a run that is over."""
        if self._closed or self._publisher.inert:
            return
        width, outbox = len(metrics), self._outbox
        admitted = self._admission.admit(step, unexpected, metrics)
        if admitted is None:
            return
        outbox.step = admitted.step
        if outbox.stage == "prepare":
            self.stage("train", admitted.step)  # who logs steps is training, said or not
        outbox.append(Row(self.identity, time_ns() // 1_000, *admitted))
        if len(admitted.metrics) + admitted.thinned >= width:
            outbox.widths.add(width)  # nothing was refused

    def evaluated(self, step: SupportsIndex | None = None, /, split: str = "validation", **metrics: Any) -> None:
        """Publish the result of an evaluation on held-out data."""
        whole = self._admission.step(metrics.pop("step", None) if step is None else step)
        numbers, deferred = self._admission.numbers(metrics)
        if not metrics:
            self._outbox.bad_calls.add("no_metrics", "metrics are keywords: run.evaluated(step, loss=...)")
        if whole is not None and numbers:
            self._append(EvalCompleted, {"step": whole, "split": split, "metrics": numbers}, deferred)

    def stage(self, stage: Stage, step: int | None = None) -> None:
        """Say that the job does something else from here on, so that an evaluation is not taken for a hang."""
        if (known := self._one_of(STAGES, stage, "stage")) is None:
            return
        self._outbox.stage = known
        if known == "prepare":
            self._outbox.widths.clear()  # whoever logs a step next is training again: `log` must look
        whole = self._admission.step(step) if step is not None else None
        self.tell(StageChanged, stage=known, step=self.last_step if whole is None else whole)

    @contextmanager
    def evaluating(self, step: int | None = None) -> Iterator[None]:
        """`with run.evaluating(step): ...`: stage `evaluate`, and back to the stage before."""
        before = self._outbox.stage
        self.stage("evaluate", step)
        try:
            yield
        finally:
            self.stage(before, step)

    def tell(self, fact: type[TrainerFact], **fields: Any) -> None:
        """Append any other fact; who, when and its number are filled in. Order with `log` is kept exactly."""
        self._append(fact, fields)

    # ------------------------------------------------------------------------------------------- attempts and the end

    def begin_attempt(
        self, reason: AttemptReason, first_step: int, parent: str | None = None, attempt_id: str | None = None
    ) -> Identity:
        """Say that this script goes back, or begins anew, by itself: a new attempt begins at `first_step`.

        `run.begin_attempt("rollback", first_step=400)` after the checkpoint of step 399 was restored. Every rank calls
        it, with the same words, before it logs step 400 again: the new attempt's id is derived from the old one's, so
        that all ranks get the same without asking each other. Rank 0 announces it. What `producers.pilot` restores
        begins its attempts by itself. A wrong word is counted, changes nothing and never raises.
        """
        old = self.identity
        known, whole = self._one_of(REASONS, reason, "reason"), self._admission.step(first_step)
        if known is None or whole is None:
            return old
        derived = derived_attempt_id(old.attempt_id, f"attempt {old.attempt + 1}")
        self.identity = old._replace(attempt_id=attempt_id or derived, attempt=old.attempt + 1)
        self._begin(reason=known, first_step=whole, parent_attempt_id=parent or old.attempt_id)
        return self.identity

    def steers(self, actions: tuple[ActionKind, ...]) -> None:
        """What this trainer can carry out; announced again, for the same attempt, if that is news."""
        if self._description.get("steers", ()) != actions:
            self._description["steers"] = actions
            self._begin(**self._started)

    def pilot(self, model: Any, optimizer: Any, **steered: Any) -> "Pilot":
        """Let the governor steer: see `producers.pilot.Pilot` for what may be given."""
        from .pilot import Pilot

        pilot = Pilot(self, model, optimizer, settings=self.settings, **steered)
        self._pilots.append(pilot)
        return pilot

    def ending(self, outcome: Outcome) -> None:
        """What to report if the script now ends without an error."""
        self._outcome = self._one_of(OUTCOMES, outcome, "outcome") or self._outcome

    def counts(self) -> Counts:
        """The accounts of the outbox: accepted = sent + queued + spooled + dropped."""
        return self._outbox.counts()

    @property
    def last_step(self) -> int:
        """The last step that was logged."""
        return self._outbox.step

    @property
    def inert(self) -> bool:
        """Whether this is a copy in a forked child: it publishes nothing."""
        return self._publisher.inert

    def close(self, outcome: Outcome | None = None, error: str = "") -> None:
        """End the run: what waits is sent, for at most `settings.close_seconds`; the rest stays on disk. Never
        raises.
        """
        if self._closed or self._publisher.inert:
            return
        self._close_pilots()
        known = self._one_of(OUTCOMES, outcome, "outcome") if outcome is not None else None
        self._announce(RunEnded, outcome=known or self._outcome, step=self.last_step, error=last_words(error))
        self._closed = True
        self._outbox.widths.clear()
        self._preemption.disarm()
        atexit.unregister(self._at_exit)
        self._publisher.close(self.settings.close_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(*self._ending(error))

    def start(self, first_step: int, reason: AttemptReason, parent: str | None) -> Self:
        """Announce the first attempt and begin to publish. Called once, by `start_run`."""
        self._begin(reason=reason, first_step=first_step, parent_attempt_id=parent)
        self._publisher.start()
        self._preemption.arm()
        atexit.register(self._at_exit)
        return self

    def _close_pilots(self) -> None:
        for pilot in self._pilots:
            try:
                pilot.close()
            except Exception:
                logger.exception("closing the pilot failed; the run ends all the same")

    def _begin(self, **attempt: Any) -> None:
        self._started = attempt
        if self.identity.rank == 0:
            self._announce(RunStarted, world_size=self.identity.world_size, **attempt, **self._description)

    def _announce(self, fact: type[TrainerFact], **fields: Any) -> None:
        """Tell what must not be lost: without its beginning a run is ungoverned, without its end it hangs."""
        told, faults = trimmed(Told(self.identity, 0, fact, fields))
        for fault in faults:
            self._outbox.bad_calls.add("announced", fault)
        self._append(fact, told.fields)

    def _append(self, fact: type[TrainerFact], fields: Mapping[str, Any], deferred: tuple[Any, ...] = ()) -> None:
        if self._closed or self._publisher.inert:
            return
        told = Told(self.identity, time_ns() // 1_000, fact, fields, deferred)
        if (why := refusal(told)) is None:
            self._outbox.append(told)
        else:
            name = getattr(fact, "__name__", "fact")
            self._outbox.bad_calls.add(f"invalid {name}", f"{name} cannot be told and is dropped: {why}")

    def _one_of(self, words: tuple[Word, ...], said: object, what: str) -> Word | None:
        word = known_word(words, said)
        if word is None:
            self._outbox.bad_calls.add(what, f"the {what} is one of {', '.join(words)}; got {shown(said)}")
        return word

    def _ending(self, error: BaseException | None) -> Ending:
        return Ending("preempted") if self._preemption.seen else ending_of(error, self._outcome)

    def _at_exit(self) -> None:
        """The script ended without `close`: the interpreter still knows whether by an error."""
        self.close(*self._ending(getattr(sys, "last_value", None)))


def start_run(
    name: str,
    *,
    run_id: str | None = None,
    settings: Settings | None = None,
    sidecar: str | Path | None = None,
    every: Every = 1,
    **description: Unpack[Description],
) -> Run:
    """Begin to publish a run. Use it as a context manager, or call `close` at the end.

    The run's id is `run_id`, or PILOTHOUSE_RUN_ID, or the scheduler's job, or that of the checkpoint whose `sidecar` is
    given, or the name with a random ending from rank 0. Needs no broker: what cannot be sent yet is kept.

    Loss, gradient norm and learning rate are told by every rank at every step, so that judging never changes. Of
    everything else rank 0 tells all, other ranks times, throughput and norms; `every=10` makes that every tenth step,
    `every={"layer/*": 100}` gives names a number of their own on all ranks. What is left out is counted
    (`producers.thinning`).

    Raises:
        UserMistake: a setting or argument is wrong, or the ranks cannot agree on a run id.
    """
    refuse_mistakes({"name": name, "run_id": run_id, "settings": settings, "sidecar": sidecar, **description})
    refuse_wrong_thinning(every)
    settings = settings if settings is not None else load_settings(os.environ)
    lineage = read_lineage(Path(sidecar)) if sidecar is not None else None
    place = place_of(os.environ)
    known = known_run_id(run_id, os.environ, lineage)
    resumed = lineage if lineage is not None and known == lineage.run_id else None
    ordinal = (resumed.attempt if resumed is not None else restarts(os.environ)) + 1
    identity = first_identity(name, known, place, os.environ, ordinal)
    told = _told(name, description, said(every, identity.world_size))
    return _run(identity, settings, told, Thinning(every, identity.rank)).start(0, *_reason(resumed, ordinal))


def _reason(resumed: Lineage | None, ordinal: int) -> tuple[AttemptReason, str | None]:
    if resumed is not None:
        return "restart", resumed.attempt_id
    return ("restart" if ordinal > 1 else "start"), None


def _told(name: str, description: Description, rule: Mapping[str, str]) -> dict[str, Any]:
    fields = described(description)
    fields["tags"] = {"name": name_label(name), "host": host(), **rule} | fields.get("tags", {})
    fields.setdefault("code_version", git_commit(script_folder()))
    return fields


def _run(identity: Identity, settings: Settings, description: Mapping[str, Any], thinning: Thinning) -> Run:
    writer_id = uuid.uuid4().hex
    rank, world_size = identity.rank, identity.world_size
    pace = Pace(
        flush=interval_at_scale(settings.producer_flush_seconds, rank, world_size),
        heartbeat=interval_at_scale(settings.heartbeat_seconds, rank, world_size),
    )
    sender = KafkaSender(settings.kafka, identity.run_id)
    spool = Spool(spool_folder(settings.spool, identity.run_id, writer_id), settings.spool_bytes)
    outbox = Outbox(identity, writer_id, sender, spool, pace)
    outbox.admission = Admission(outbox.bad_calls, thinning)
    sender.on_news(outbox.wake.set)
    return Run(identity, settings, description, outbox)
