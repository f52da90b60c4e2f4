"""A script's own checkpoints: told, so that the governor knows which of them is the last good one.

`pilothouse.announce_checkpoint(run, step, path)`. Nobody but the script can read them, so nothing here restores them:
where a rule wants to go back, people are told which one to start from, and what a pilot saved itself is preferred.
"""

import hashlib
import os
from pathlib import Path

from ...events.telemetry import CheckpointSaved
from ..teller import Teller
from ..voice import logger

ID_CHARS = 160


def announce_checkpoint(run: Teller, step: int, path: str | os.PathLike[str], took_s: float = 0.0) -> None:
    """Say that the script has saved this file or folder after `step`; rank 0 tells, on other ranks nothing happens.

    Call it when all of it is written. Its sum is over the names and sizes of the files: reading them again would hold
    the training up. A path that is not there is said in the log and told to nobody. Never raises.
    """
    if run.identity.rank != 0:
        return
    try:
        saved = Path(path).expanduser().absolute()
        files = sorted((str(file.relative_to(saved)), file.stat().st_size) for file in _files_of(saved))
    except (OSError, TypeError, ValueError) as error:
        logger.error("pilothouse: the checkpoint of step %s was not announced: %s", step, error)
        return
    run.tell(
        CheckpointSaved,
        step=step,
        checkpoint_id=f"own-{step:08d}-{saved.name}"[:ID_CHARS],
        path=str(saved),
        manifest_sha256=hashlib.sha256(repr(files).encode()).hexdigest(),
        size_bytes=sum(size for _, size in files),
        took_s=took_s,
        by_script=True,
    )


def _files_of(saved: Path) -> list[Path]:
    found = [file for file in saved.rglob("*") if file.is_file()] if saved.is_dir() else [saved]
    if not found:
        raise FileNotFoundError(f"{saved} is an empty folder")
    return found
