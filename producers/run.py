"""A run as its training script sees it: `with pilothouse.start_run("gpt-small", config=cfg) as run: run.log(step,
loss=loss)`.

The first file on an event's way out of the rank. Every method that a training loop calls only appends to
`delivery.outbox`, costs microseconds, and never raises: what is wrong with a call is said once in the log
`pilothouse`, with the line that made it, and counted. What steers the trainer is `steering.pilot`, which tells its
receipts by `Run.tell`.
"""

import atexit
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import count
from time import time_ns
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, SupportsIndex

from ..events import telemetry
from ..events.actions import ActionKind
from ..events.commands import PipelineFact, PipelineReported
from ..events.envelope import TrainerFact, derived_attempt_id
from ..events.telemetry import AttemptReason, EvalCompleted, Outcome, RunEnded, RunStarted, Stage, StageChanged
from ..settings import Settings
from .announcement import Announcement
from .beginning import Beginning, Keeper
from .beside import FIND_SECONDS, Beside, Finding
from .copies import itself, no_links, pickled
from .delivery.accounts import Counts
from .delivery.batching import MAX_ROWS, Row, Told
from .delivery.outbox import Outbox
from .delivery.publisher import Publisher
from .delivery.telling import OUTCOMES, REASONS, STAGES, known_word, refusal, trimmed, without_secrets
from .ending import Ending, close_pilots, ending_of, last_words
from .harmless import harmless, harmless_or
from .metrics.profiles import WINDOW
from .metrics.timings import StepTimings, TimedLoader
from .person import person
from .ranks.context import Identity, Lineage
from .signals import Preemption
from .steering.departure import Followed

if TYPE_CHECKING:
    from .steering.pilot import Pilot


class Run:
    """One writer of one run: this process. Made by `start_run`; `identity` changes with `begin_attempt`."""

    def __init__(self, identity: Identity, settings: Settings, description: Mapping[str, Any], outbox: Outbox) -> None:
        self.settings = settings
        self.identity = identity
        self._outbox = outbox
        self._queue = outbox.queue
        self._room = 0  # how long the queue may be for `log` to append to it without a look; 0: it must look
        self._step = 0
        self._publisher = Publisher(outbox, self._left_alone)
        self._admission = outbox.admission
        self._preemption = Preemption()
        self._announcement = Announcement(identity, description)
        self._timings = StepTimings()
        self._beside = Beside(self, outbox.bad_calls)
        self._outcome: Outcome = "completed"
        self._error = ""
        self._closed = False
        self._closings = count()
        self._copied = False
        self._pilots: list[Pilot] = []
        self._host: Keeper | None = None
        self._followed: Followed | None = None

    def log(self, step: SupportsIndex | None = None, /, *unexpected: object, **metrics: Any) -> None:
        """Publish the metrics of one step: `run.log(step, loss=loss, grad_norm=norm)`.

        A metric is a real number, or a NumPy value or tensor with one element; NaN and infinities are welcome. A tensor
        on a GPU is copied asynchronously. Steps may repeat and go back: all is kept, and of one step the first call of
        each rank is what the run is judged by, so give `loss` and `grad_norm` in one call.
        """
        # Floats and ints are appended as they are; the rest is another thread's work. After a training step each object
        # touched here is a cache miss or two: so there are few, and numbers (`values.STEP_LIMIT`) instead of names.
        if type(step) is int and 0 <= step < 2**62 and metrics and not unexpected:
            for value in metrics.values():
                if type(value) is float:
                    continue
                if type(value) is not int or not -(2**63) < value < 2**63:
                    break
            else:
                queue = self._queue
                if len(queue) < self._room:
                    self._step = step
                    queue.append((self.identity, time_ns(), step, metrics))
                    return
                if self._room:
                    self._step = step
                    self._outbox.append((self.identity, time_ns(), step, metrics))
                    return
        self._look_at(step, unexpected, metrics)

    @harmless
    def _look_at(self, step: object, unexpected: tuple[object, ...], metrics: dict[str, Any]) -> None:
        """What `log` does with any other call: the first of training, a tensor, a mistake, one after the end."""
        if self._closed or self._publisher.inert:
            if self._copied:
                self._outbox.bad_calls.add("copy", "this run came here by pickle and publishes nothing: call start_run")
            return
        admitted = self._admission.admit(step, unexpected, metrics)
        if admitted is None:
            return
        self._step = admitted.step
        if self._outbox.stage == "prepare":
            self.stage("train", admitted.step)  # who logs steps is training, said or not
        self._outbox.append(Row(self.identity, time_ns() // 1_000, *admitted))
        self._room = MAX_ROWS

    @harmless
    def evaluated(self, step: SupportsIndex | None = None, /, split: str = "validation", **metrics: Any) -> None:
        """Publish the result of an evaluation on held-out data."""
        whole = self._admission.step(metrics.pop("step", None) if step is None else step)
        numbers, deferred = self._admission.numbers(metrics)
        if not metrics:
            self._outbox.bad_calls.add("no_metrics", "metrics are keywords: run.evaluated(step, loss=...)")
        if whole is not None and numbers:
            self._append(EvalCompleted, {"step": whole, "split": split, "metrics": numbers}, deferred)

    @harmless
    def stage(self, stage: Stage, step: int | None = None) -> None:
        """Say that the job does something else from here on, so that an evaluation is not taken for a hang."""
        if (known := known_word(STAGES, stage, "stage", self._outbox.bad_calls)) is None:
            return
        self._outbox.stage = known
        if known == "prepare":
            self._room = 0  # whoever logs a step next is training again: `log` must look
        whole = self._admission.step(step) if step is not None else None
        self._timings.stage(known)
        self.tell(StageChanged, stage=known, step=self.last_step if whole is None else whole)

    @harmless_or(lambda _: nullcontext())
    @contextmanager
    def evaluating(self, step: int | None = None) -> Iterator[None]:
        """`with run.evaluating(step): ...`: stage `evaluate`, and back to the stage before."""
        before = self._outbox.stage
        self.stage("evaluate", step)
        try:
            yield
        finally:
            self.stage(before, step)

    @harmless
    def tell(self, fact: type[TrainerFact], **fields: Any) -> None:
        """Append any other fact; who, when and its number are filled in. Order with `log` is kept exactly."""
        self._append(fact, fields)

    @harmless
    def pass_on(self, told: Told) -> None:
        """Append a fact that says itself of which attempt and moment it is."""
        if self._closed or self._publisher.inert:
            return
        told = without_secrets(told)
        if (refused := refusal(told)) is None:
            self._outbox.append(told)
        else:
            name = getattr(told.fact, "__name__", "fact")
            self._outbox.bad_calls.add(f"invalid {name}", f"{name} cannot be told and is dropped: {refused}")

    @harmless
    def recipe_changed(self, what: str, step: int | None = None, *, note: str = "", **numbers: float) -> None:
        """Say that from here on (behind `step`) training is meant to be otherwise, so that this is no alarm:
        `run.recipe_changed("batch_size", batch_size=512)`; a phase of the schedule, a data mix. Rank 0 tells.
        """
        whole = self.last_step if step is None else self._admission.step(step)
        if whole is not None and self.identity.rank == 0:
            self.tell(telemetry.RecipeChanged, step=whole, what=what, numbers=numbers, note=note)

    def timed(self, loader: Any, model: Any = None) -> Any:
        """`for batch in run.timed(loader)`: the loader, with `data_wait_s` and `compute_s` in the rows of `log`.

        With a `DistributedDataParallel` model, `comm_s` as well (`metrics.timings` says what each is).
        `Pilot.batches` times its loader by itself.
        """
        self._timings.watch(model)
        self.__dict__["log"] = self._timed_log  # who times nothing pays nothing
        return TimedLoader(loader, self._timings)

    @harmless
    def profile(
        self, feature: str, values: Any, step: int | None = None, *, schema: str = "", window: int = WINDOW
    ) -> None:
        """Tell the distribution of an input, every `window` calls: `run.profile("length", lengths, step)`.

        `values` is a tensor, an array, a list or a number; of many values a spread sample is looked at, and how many
        is said. The bins are learnt from the first window and stay, until `schema` (the data's version) changes. Rank 0
        tells; on other ranks the call does nothing.
        """
        whole = self.last_step if step is None else self._admission.step(step)
        if whole is not None and self.identity.rank == 0:
            self._beside.profile(feature, values, whole, schema, window)

    @harmless
    def capture_logs(
        self, level: int | str = logging.INFO, source: logging.Logger | str = ""
    ) -> logging.Handler | None:
        """Tell the lines that the script logs from here on, by `logging`, with run, attempt, rank and step.

        Call it behind the script's own set-up of logging. `source` is the logger to listen to (the root); levels of
        loggers are not changed. Bounded: what is over is counted (`metrics.log_lines`). Ends with the run.
        """
        return self._beside.capture(source, level)

    @harmless
    def report_fact(
        self, fact: PipelineFact, *, subject: str = "", note: str = "", who: str = "", **numbers: float
    ) -> None:
        """Tell a fact of the pipeline around this run: `run.report_fact("data_freshness", age_hours=3.5)`.

        The kinds and their numbers are a closed list (`events.commands.PIPELINE_FACTS`); `pilothouse report-fact` does
        the same from outside.
        """
        fields = {"fact": fact, "who": who or person(), "subject": subject, "note": note, "numbers": numbers}
        self._append(PipelineReported, fields)  # type: ignore[arg-type]  # a fact that has a rank's identity where it knows it

    @harmless_or(lambda run: run.identity)
    def begin_attempt(
        self, reason: AttemptReason, first_step: int, parent: str | None = None, attempt_id: str | None = None
    ) -> Identity:
        """Say that this script goes back, or begins anew, by itself: a new attempt begins at `first_step`.

        `run.begin_attempt("rollback", first_step=400)` after the checkpoint of step 399 was restored. Every rank calls
        it, with the same words, before it logs step 400 again: the new attempt's id is derived from the old one's, so
        that all ranks get the same without asking each other. Rank 0 announces it. What `steering.pilot` restores
        begins its attempts by itself. A wrong word is counted, changes nothing and never raises.
        """
        old = self.identity
        known, whole = known_word(REASONS, reason, "reason", self._outbox.bad_calls), self._admission.step(first_step)
        if known is None or whole is None:
            return old
        derived = derived_attempt_id(old.attempt_id, f"attempt {old.attempt + 1}")
        self.identity = old._replace(attempt_id=attempt_id or derived, attempt=old.attempt + 1)
        self._begin(reason=known, first_step=whole, parent_attempt_id=parent or old.attempt_id)
        if self._host is not None:
            self._host.note(Lineage(*self.identity[:3]))
        return self.identity

    @harmless
    def steers(self, actions: tuple[ActionKind, ...], values: Callable[[], Mapping[str, float]] = dict) -> None:
        """What this trainer can carry out; announced again, for the same attempt, if that is news. `values` says what
        is in force whenever an attempt is announced.
        """
        self._announcement.values = values
        if self._announcement.note("steers", actions):
            self._announce_attempt()

    def pilot(self, model: Any, optimizer: Any, **steered: Any) -> "Pilot":
        """Let the governor steer: see `steering.pilot.Pilot` for what may be given."""
        from .steering.pilot import Pilot

        self._timings.watch(model)
        if self._followed is not None:
            steered["following"] = self._followed.following
        if self.inert:
            steered["links"] = no_links
        pilot = Pilot(self, model, optimizer, settings=self.settings, **steered)
        self._pilots.append(pilot)
        return pilot

    @harmless
    def ending(self, outcome: Outcome) -> None:
        """What to report if the script now ends without an error."""
        self._outcome = known_word(OUTCOMES, outcome, "outcome", self._outbox.bad_calls) or self._outcome

    def counts(self) -> Counts:
        """The accounts of the outbox: accepted = sent + queued + spooled + dropped."""
        return self._outbox.counts()

    @property
    def last_step(self) -> int:
        """The last step that was logged."""
        return self._step

    @property
    def inert(self) -> bool:
        """Whether this is a copy in a forked child: it publishes nothing."""
        return self._publisher.inert

    @harmless
    def close(self, outcome: Outcome | None = None, error: str = "") -> None:
        """End the run: what waits is sent, for at most `settings.close_seconds`; the rest stays on disk. Takes a second
        more at most, whatever hangs. Never raises; Ctrl-C breaks it off, and at exit the rest goes to disk at once.
        """
        if self._publisher.inert or next(self._closings):
            return
        known = known_word(OUTCOMES, outcome, "outcome", self._outbox.bad_calls) if outcome is not None else None
        self._outcome, self._error = known or self._outcome, last_words(error)
        self._preemption.hold()
        try:
            deadline = time.monotonic() + self.settings.close_seconds
            share = self.settings.close_seconds / 4  # neither other ranks nor a driver take the time to send
            self._let_go(share)
            self._end()
            self._publisher.close(max(0.0, deadline - time.monotonic()))
        finally:
            self._preemption.disarm()
        atexit.unregister(self._at_exit)

    def follow(self, followed: Followed) -> None:
        """Do what was done to another run. Called by `start_run`, before the run starts."""
        self._followed = followed
        self._outbox.on_rows = followed.departure.seen

    def left_behind(self, step: int) -> Self:
        """Become what `producers.copies` tells of: a run in a process that has no part in it."""
        self._step, self._copied, self._publisher.inert = step, True, True
        return self

    __copy__ = __deepcopy__ = itself
    __reduce__ = pickled

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(*self._ending(error))

    def start(self, beginning: Beginning, finding: Finding | None = None) -> Self:
        """Announce the first attempt and begin to publish. Called once, by `start_run`."""
        self._host = beginning.host
        if finding is not None:
            self._announcement.note("environment", finding.within(FIND_SECONDS))
        self._begin(reason=beginning.reason, first_step=0, parent_attempt_id=beginning.parent)
        self._publisher.start()
        self._beside.sample_resources()
        if finding is not None and not finding.complete:
            self._beside.await_finding(finding)
        if not self.inert:
            self._preemption.arm()
        atexit.register(self._at_exit)
        return self

    def found(self, environment: Mapping[str, Any]) -> None:
        """What was still being looked for at the start is found: the attempt is announced again if that is news."""
        if self._announcement.note("environment", dict(environment)):
            self._announce_attempt()

    def _timed_log(self, step: SupportsIndex | None = None, /, *unexpected: object, **metrics: Any) -> None:
        """`log`, once a loader is timed."""
        if metrics:
            self._timings.put(step, metrics)
        Run.log(self, step, *unexpected, **metrics)

    def _let_go(self, share: float) -> None:
        """End all that is done beside telling; each part of it in `share` seconds."""
        close_pilots(self._pilots, time.monotonic() + share)
        self._beside.close(share)
        if self._host is not None:
            self._host.close()
        if self._followed is not None:
            self._followed.conclude(self, self._outbox, share)

    def _end(self) -> None:
        if not self._closed:
            self._announce(RunEnded, self.identity, outcome=self._outcome, step=self.last_step, error=self._error)
        self._closed = True
        self._room = 0

    def _left_alone(self) -> None:
        """In a forked child, or without a thread: nothing is kept for nobody, and SIGTERM is not ours to hear."""
        self._room = 0
        self._preemption.disarm()

    def _begin(self, **attempt: Any) -> None:
        self._announcement.begin(self.identity, **attempt)
        self._announce_attempt()

    def _announce_attempt(self) -> None:
        identity = self._announcement.identity
        if identity.rank == 0:
            self._announce(RunStarted, identity, **self._announcement.fields)

    def _announce(self, fact: type[TrainerFact], identity: Identity, **fields: Any) -> None:
        """Tell what must not be lost: without its beginning a run is ungoverned, without its end it hangs."""
        told, faults = trimmed(Told(identity, time_ns() // 1_000, fact, fields))
        for fault in faults:
            self._outbox.bad_calls.add("announced", fault)
        self.pass_on(told)

    def _append(self, fact: type[TrainerFact], fields: Mapping[str, Any], deferred: tuple[Any, ...] = ()) -> None:
        self.pass_on(Told(self.identity, time_ns() // 1_000, fact, fields, deferred))

    def _ending(self, error: BaseException | None) -> Ending:
        return Ending("preempted") if self._preemption.seen else ending_of(error, self._outcome)

    def _at_exit(self) -> None:
        """The script ended without `close`, or broke it off: the interpreter still knows whether by an error."""
        self.close(*self._ending(getattr(sys, "last_value", None)))
        self._end()
        self._publisher.close(0.0)
