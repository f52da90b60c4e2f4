"""The pilot: what a training script gives to be steered, and the few calls by which it lets itself be.

Made by `Run.pilot`. It composes one rank's side of steering: the registers that all ranks share (`ranks.ballots`),
the follower of the control topic on rank 0 (`steering.control`), the trainer's parts (`steering.rollback.Trainer`)
and `steering.safe_point`, which does the work at each safe point. Nothing here stops a training that goes well: when
steering fails, it says so and is gone.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from ...events.actions import LR_MULTIPLIER, QUANTITIES, ActionKind
from ...events.errors import CheckpointError, RestartRequired, SettingsInvalid
from ...events.signing import Trust
from ...events.telemetry import LR_RAMP, RecipeChanged
from ...keyring import sealing_key, trust_of
from ...settings import Settings
from ..checkpoints.saving import Saving
from ..checkpoints.sharding import obstacle
from ..checkpoints.store import Checkpoints
from ..checkpoints.trainer_state import TrainerState
from ..ranks.ballots import BallotsLost, LocalBallots, find_ballots
from ..teller import Teller
from ..voice import logger
from .actuators import Actuators
from .control import follow
from .course import Course, Signal
from .following import LEFT_TO_PEOPLE, Following
from .found_knobs import found_knobs
from .knobs import Knob, Knobs
from .learning_rate import LrMultiplier
from .rollback import Trainer, remembered, restore_latest
from .safe_point import Links, Steering
from .undoing import values_of

CLOSE_SECONDS = 3.0
"""How long the end is waited for at most."""

REMIND_STEPS = 200
"""After so many steps without one, who gave a folder for checkpoints is told that nothing is saved."""

_pilots: Counter[str] = Counter()
"""How many pilots this process made in an attempt: the n-th of one rank belongs to the n-th of every other."""


def open_links(run: Teller, settings: Settings) -> Links:
    """This rank's connections: the other ranks through torch.distributed, and on rank 0 the control topic.

    Raises:
        BallotsLost: there are other ranks, and no way to agree with them.
    """
    identity = run.identity
    # The first attempt's id is minted anew by every launch: ranks of an earlier one cannot be mistaken for ours.
    _pilots[identity.attempt_id] += 1
    key = f"{identity.attempt_id}/{_pilots[identity.attempt_id]}"
    ballots = find_ballots(key, identity.rank, identity.world_size)
    if identity.rank != 0:
        return Links(ballots)
    trust, in_memory = trusted(settings), settings.embedded_broker
    return Links(ballots, follow(settings.log_access, identity.run_id, log_in_memory=in_memory, trust=trust))


def trusted(settings: Settings) -> Callable[[], Trust]:
    """Whose commands are obeyed. A training does not die of keys that cannot be read: it obeys nobody."""
    try:
        trust = trust_of(settings)
    except SettingsInvalid as error:
        logger.error("pilothouse: no command will be obeyed: %s", error)
        return Trust
    if not trust().required:
        logger.warning(
            "pilothouse: commands are not signed: whoever can write to Kafka at %s can steer this run "
            "(PILOTHOUSE_TRUSTED_KEYS names the keys to obey)",
            settings.kafka,
        )
    elif not trust().keys:
        logger.error(
            "pilothouse: no command will be obeyed: Kafka at %s is open to others, and no keys were given to obey; "
            "name them in PILOTHOUSE_TRUSTED_KEYS or PILOTHOUSE_TRUSTED_KEYS_FILE",
            settings.kafka,
        )
    return trust


class Pilot:
    """Lets a training be steered. Every rank makes one, and calls the same methods at the same steps.

    `optimizer` and `scheduler` may each be one or several. `knobs` are named setters, `Knob`s or numbers
    (`steering.knobs`); weight decay and dropout are found without being named. `only` narrows what may be steered to
    some actions. `checkpoints` is a folder, or `Checkpoints` with how often and how many; without it nothing can
    be rolled back. `evict(rank)` asks whoever places ranks to replace one; it is called on every rank, and what it
    raises on one of them is the intervention's failure. `following` is the run's, where it follows another.
    """

    def __init__(  # noqa: PLR0913  # the face of steering: each argument is a part of the trainer, and all but two are optional
        self,
        run: Teller,
        model: Any,
        optimizer: Any,
        *,
        settings: Settings,
        scheduler: Any = None,
        scaler: Any = None,
        knobs: Mapping[str, Knob | Callable[[float], object] | float] | None = None,
        checkpoints: str | os.PathLike[str] | Checkpoints | None = None,
        evict: Callable[[int], object] | None = None,
        only: Collection[ActionKind] | None = None,
        links: Callable[[Teller, Settings], Links] = open_links,
        following: Following | None = None,
    ) -> None:
        self._run = run
        self._links, self._lonely = _linked(run, settings, links)
        optimizers, schedulers = _several(optimizer), _several(scheduler)
        saving = None
        key, unreadable = _sealing(settings)
        if checkpoints is not None and (why := obstacle(model) or unreadable):
            logger.error("pilothouse: no checkpoints and no rollback for this model: %s", why)
        elif checkpoints is not None:
            folder = checkpoints if isinstance(checkpoints, Checkpoints) else Checkpoints(checkpoints)
            folder.key = key
            if following is not None:
                folder.judged = following.judged
            elif self._links.commands is not None:
                folder.judged = self._links.commands.judged
            state = TrainerState(model, optimizers, schedulers, scaler)
            saving = Saving(run, self._links.ballots, folder, state)
        self._trainer = Trainer(
            run=run,
            ballots=self._links.ballots,
            lr=LrMultiplier(optimizers),
            knobs=Knobs(found_knobs(model, optimizers) | dict(knobs or {})),
            course=Course(run),
            saving=saving,
            following=following,
            evict=evict,
        )
        self._actuators = Actuators(self._trainer, only)
        self._steering = Steering(run, self._links, self._actuators, following=following)
        if following is not None and self._lonely:
            following.give_up(self._lonely)
        self._last_step = 0
        self._unsaved_steps = 0
        self._open = True
        self.steers: tuple[ActionKind, ...] = ()
        self.offer()

    def __deepcopy__(self, _memo: object) -> "Pilot":
        return self  # a model that holds its pilot may be copied, for averages

    # -------------------------------------------------------------- what `integrations` call for somebody else's loop

    def offer(self, *kinds: ActionKind) -> None:
        """Be steered in these ways as well, where only some were given; announced again if that is news."""
        self._actuators.offer(kinds)
        steers = () if self._lonely else self._actuators.steers
        follows = self._trainer.following is not None
        self.steers = tuple(kind for kind in steers if kind in LEFT_TO_PEOPLE) if follows else steers
        self._run.steers(self.steers, self._in_force)

    def data(self, loader: Iterable[Any], fresh: bool = False) -> Iterator[Any]:
        """The batches of one epoch, for a loop whose steps are counted elsewhere: some may be skipped, or it stops."""
        return self._trainer.course.data(self._run.timed(loader), fresh)

    def add_optimizer(self, optimizer: Any) -> None:
        """One that was made later: its learning rate is steered with the others'."""
        self._trainer.lr.add(optimizer)

    # ------------------------------------------------------------------------------------ what a training loop calls

    def batches(self, loader: Iterable[Any], steps: int | None = None) -> Iterator[tuple[int, Any]]:
        """(step, batch) for the loop: honours skipped batches, rollbacks and a stop, and goes on where a restart left
        off.

        Until step number `steps` is reached, over as many epochs as that takes; without `steps`, to the end of the
        epoch.
        """
        return self._trainer.course.batches(self._run.timed(loader), steps)

    def safe_point(self, step: int) -> Signal:
        """Between two steps, on every rank: here interventions take effect. Returns what a loop without `batches` must
        do.

        Raises:
            RestartRequired: a rollback went wrong half-way on this rank, which must not train on.
        """
        self._last_step = step
        if self._trainer.lr.reached(step):
            self._tell_the_rate_is_back(step)
        course = self._trainer.course
        if self._open and not self._lonely:
            self._steer(step)
            if not course.rolled_back and not course.stopping and self._is_due(step):
                self.checkpoint(step)
            self._remind()
        return course.signal()

    def checkpoint(self, step: int) -> None:
        """Save a checkpoint of this step, on every rank. A disk that does not take it is reported, not raised."""
        saving = self._trainer.saving
        if saving is None:
            logger.error("pilothouse: nothing was saved at step %d: the pilot was made without checkpoints=...", step)
            return
        self._unsaved_steps = -1
        try:
            self._trainer.lr.settle()
            saving.save(step, self._trainer.course.position, remembered(self._trainer))
        except CheckpointError as error:
            logger.error("pilothouse: %s", error)

    def restore_latest(self) -> int | None:
        """Before the loop, on every rank: go on from the newest checkpoint that all can read; its step, or None.

        Raises:
            RestartRequired: a checkpoint was restored only in part.
        """
        if self._trainer.saving is None or self._lonely:
            return None
        try:
            return restore_latest(self._trainer, self._trainer.saving)
        except BallotsLost as error:
            logger.error("pilothouse: no checkpoint was restored, for the ranks cannot agree on one: %s", error)
            return None

    def knob(self, name: str) -> float | None:
        """The value of a knob, where it is known: for a loop that reads its `clip` back."""
        return self._trainer.knobs.value(name)

    @property
    def data_position(self) -> int:
        """How many batches of this rank's data were drawn or dropped so far."""
        return self._trainer.course.position

    @property
    def lr_multiplier(self) -> float:
        """What the learning rate is multiplied by while the optimizer steps."""
        return self._trainer.lr.value

    @property
    def steering_over(self) -> str:
        """Why nothing more will be applied by this process; empty while steering works."""
        return self._lonely or self._steering.over

    def close(self, within: float = CLOSE_SECONDS) -> None:
        """Leave steering; the run calls it at its end. Takes `within` seconds at most, whatever the other ranks or the
        broker do. Never raises.
        """
        if not self._open:
            return
        self._open = False
        deadline = time.monotonic() + min(within, CLOSE_SECONDS)
        try:
            self._steering.leave(self._last_step)
            self._trainer.lr.detach()
            self._links.ballots.close(max(0.0, deadline - time.monotonic()))
            if self._links.commands is not None:
                self._links.commands.close(max(0.0, deadline - time.monotonic()))
        except Exception:  # noqa: BLE001  # the run is over either way, and its telemetry must still go out
            logger.exception("pilothouse: steering did not end in order")

    def _in_force(self) -> dict[str, float]:
        """What may be steered, as it is now; a rate on its way back from a cut is left out. A getter is somebody else's
        code.
        """
        lr = self._trainer.lr
        stays = lr.ramp is None and lr.learning_rate is not None
        try:
            return values_of(self._trainer, [name for name in QUANTITIES if stays or name != LR_MULTIPLIER])
        except Exception:  # noqa: BLE001  # whatever a knob of the script raises
            logger.exception("pilothouse: which values are in force is not known: a knob's getter raised")
            return {}

    def _steer(self, step: int) -> None:
        try:
            self._steering.at(step)
        except RestartRequired:
            raise
        except Exception as error:  # noqa: BLE001  # the training must go on as if we were absent, whatever we did wrong
            logger.exception("pilothouse: steering is over for this attempt after a fault of its own")
            self._steering.give_up(f"{type(error).__name__}: {error}")

    def _tell_the_rate_is_back(self, step: int) -> None:
        if self._links.ballots.rank == 0:
            self._run.tell(RecipeChanged, step=step, what=LR_RAMP, numbers=self._trainer.lr.numbers)

    def _remind(self) -> None:
        if self._trainer.saving is None or self._unsaved_steps < 0:
            return
        self._unsaved_steps += 1
        if self._unsaved_steps == REMIND_STEPS:
            self._unsaved_steps = -1
            logger.warning(
                "pilothouse: no checkpoint after %d steps, so nothing can be rolled back: call pilot.checkpoint(step), "
                "or give checkpoints=pilothouse.Checkpoints(folder, every=...)",
                REMIND_STEPS,
            )

    def _is_due(self, step: int) -> bool:
        saving = self._trainer.saving
        return saving is not None and saving.checkpoints.due(step)


def _linked(run: Teller, settings: Settings, links: Callable[[Teller, Settings], Links]) -> tuple[Links, str]:
    try:
        return links(run, settings), ""
    except BallotsLost as error:
        logger.error("pilothouse: this run is observed only: %s", error)
        return Links(LocalBallots()), str(error)


def _sealing(settings: Settings) -> tuple[bytes | None, str]:
    """The key of what is saved, and why nothing may be: what was to be encrypted is never written plainly."""
    try:
        return sealing_key(settings), ""
    except SettingsInvalid as error:
        return None, str(error)


def _several(given: Any) -> tuple[Any, ...]:
    if given is None:
        return ()
    return tuple(given) if isinstance(given, list | tuple) else (given,)
