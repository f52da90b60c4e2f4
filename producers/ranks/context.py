"""Where this process stands: rank and world size, run id, attempt, commit and host, found without being told.

Called once by `producers.start`, before anything is published. Reads what launchers leave behind (torchrun,
Slurm, MPI), and asks `torch.distributed` where it is initialised. Loads neither PyTorch nor anything else: whoever uses
it has.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ...events.errors import UserMistake
from ..plain import shown, why
from ..voice import logger

RUN_ID_KEY = "PILOTHOUSE_RUN_ID"
MAX_RUN_ID = 200
_RULE = f"1 to {MAX_RUN_ID} printable characters"
UUID_CHARS = 36
MAX_DIGITS = 7
"""A launcher's or a sidecar's number of more digits counts no ranks, attempts or restarts."""

RANK_KEYS = (
    ("RANK", "WORLD_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("PMI_RANK", "PMI_SIZE"),
    # Not SLURM_NTASKS: a batch script that never calls srun has that too, and is one process.
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
)
LOCAL_RANK_KEYS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
RESTART_KEYS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
JOB_KEYS = ("SLURM_ARRAY_JOB_ID", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
LAUNCH_KEY = "TORCHELASTIC_RUN_ID"


class Identity(NamedTuple):
    """Who speaks: one rank of one attempt. Everything appended to the outbox carries the identity of its moment."""

    run_id: str
    attempt_id: str
    attempt: int
    rank: int
    world_size: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """An attempt of a run: the one that a checkpoint came from, as its sidecar tells, or the one that rank 0 begins."""

    run_id: str
    attempt_id: str
    attempt: int


class Place(NamedTuple):
    """This process among its peers."""

    rank: int
    world_size: int


def read_lineage(sidecar: Path) -> Lineage | None:
    """The lineage in a checkpoint's sidecar, a JSON object with `run_id`, `attempt_id` and `attempt`; None where
    there is none.
    """
    try:
        told = json.loads(sidecar.read_text())
        lineage = Lineage(str(told["run_id"]), str(told["attempt_id"]), int(told["attempt"]))
        if not 0 < lineage.attempt < 10**MAX_DIGITS or not can_be_run_id(lineage.run_id):
            raise ValueError(f"attempt {lineage.attempt} of run {lineage.run_id!r:.60}")
    except (FileNotFoundError, NotADirectoryError):
        return None  # a first start
    except (OSError, ArithmeticError, ValueError, LookupError, TypeError, RecursionError) as error:
        logger.warning("%s tells no lineage and is not continued (%s)", sidecar, why(error))
        return None
    return lineage


def place_of(environ: Mapping[str, str]) -> Place:
    """Rank and world size: from torch.distributed, else from the launcher's variables, else alone."""
    distributed = initialised_distributed()
    if distributed is not None:
        return Place(distributed.get_rank(), distributed.get_world_size())
    for rank_key, size_key in RANK_KEYS:
        rank, size = environ.get(rank_key, ""), environ.get(size_key, "")
        if rank.isdecimal() and size.isdecimal() and int(rank) < int(size):
            return Place(int(rank), int(size))
    return Place(0, 1)


def local_rank(place: Place, environ: Mapping[str, str]) -> int:
    """This process among those of its machine, as the launcher says; without a word of it, all are on one machine."""
    told = next((environ[key] for key in LOCAL_RANK_KEYS if environ.get(key, "").isdecimal()), "")
    return int(told) if told and len(told) <= MAX_DIGITS else place.rank


def known_run_id(name: str, argument: str | None, environ: Mapping[str, str], lineage: Lineage | None) -> str | None:
    """The run id that every rank can know by itself: argument, environment, scheduler's job, sidecar, launch, in that
    order. A job may train several runs: what it or a launch names begins with the run's own name.
    """
    if argument:
        return argument
    if named := environ.get(RUN_ID_KEY):
        if can_be_run_id(named):
            return named
        # No training dies of a variable; its author's own argument is refused.
        logger.warning("%s is no run id (%s) and not used; got %s", RUN_ID_KEY, _RULE, shown(named))
    for key in JOB_KEYS:
        job = environ.get(key)
        if job:
            task = environ.get("SLURM_ARRAY_TASK_ID")
            return f"{name}-{job}_{task}" if key == "SLURM_ARRAY_JOB_ID" and task else f"{name}-{job}"
    if lineage is not None:
        return lineage.run_id
    # torchrun calls every rendezvous that nobody named "none", or by 36 characters that say nothing.
    launch = environ.get(LAUNCH_KEY, "none")
    return f"{name}-{launch[:8] if len(launch) == UUID_CHARS else launch}" if launch != "none" else None


def checked_run_id(run_id: str) -> str:
    """The run id, if it can be one.

    Raises:
        UserMistake: it is empty, too long or no text.
    """
    if not can_be_run_id(run_id):
        raise UserMistake(f"run_id must be {_RULE}, got {run_id!r:.60}")
    return run_id


def can_be_run_id(text: str) -> bool:
    return 0 < len(text) <= MAX_RUN_ID and text.isprintable()


def restarts(environ: Mapping[str, str]) -> int:
    """How often the launcher says that it started this job again."""
    counts = [environ.get(key, "0") for key in RESTART_KEYS]
    return sum(int(count) for count in counts if count.isdecimal() and len(count) <= MAX_DIGITS)


def host() -> str:
    """This machine's name."""
    return socket.gethostname()


def git_commit(start: Path) -> str:
    """The commit checked out where `start` lies, read from `.git` itself: no process is started. Empty where there
    is none.
    """
    try:
        folder = git_folder(start)
        return _head(folder) if folder is not None else ""
    except (OSError, ValueError, IndexError):
        return ""


def git_folder(start: Path) -> Path | None:
    """The repository's own folder of the checkout around `start`; None where there is none.

    Raises:
        OSError: it cannot be read.
    """
    dot_git = next((found for parent in (start, *start.parents) if (found := parent / ".git").exists()), None)
    if dot_git is None or dot_git.is_dir():
        return dot_git
    # A worktree or submodule: a file that says where the folder is.
    return (dot_git.parent / dot_git.read_text().removeprefix("gitdir:").strip()).resolve()


def _head(folder: Path) -> str:
    head = (folder / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head[:64]
    ref = head.removeprefix("ref:").strip()
    common = folder / "commondir"
    shared = (folder / common.read_text().strip()) if common.exists() else folder
    for place in (folder / ref, shared / ref):
        if place.exists():
            return place.read_text().strip()[:64]
    packed = (shared / "packed-refs").read_text().splitlines()
    return next((line.split()[0] for line in packed if line.endswith(f" {ref}")), "")


def initialised_distributed() -> Any:
    """torch.distributed, if the script has loaded and initialised it."""
    module = sys.modules.get("torch.distributed")
    return module if module is not None and module.is_available() and module.is_initialized() else None


def script_folder() -> Path:
    """Where the training script lies, or the working directory of a notebook."""
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    try:
        return Path(main).resolve().parent if main else Path(os.getcwd())
    except OSError:  # the working directory is gone: that is its owner's business
        return Path(os.sep)
