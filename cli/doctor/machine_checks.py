"""What the doctor finds on this machine: workers, disks, the spool, policies, and what killed commands left."""

import shutil
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ...settings import Settings
from ...stream_processors.health import fitness, read_health
from ..stack_file import told_by_stack
from .finding import Finding

LATE_RECORDS = 10_000
"""So many that wait are some seconds of a busy partition."""
LEAST_FREE, LITTLE_FREE = 512 * 1024**2, 2 * 1024**3
LEFT_AFTER_SECONDS = 3_600.0


def workers(settings: Settings) -> Iterator[Finding]:
    """What each worker of this machine says of itself."""
    told = {file.stem: read_health(file) for file in sorted((settings.data_dir / "health").glob("*.json"))}
    for name in ("governor", "archiver") if told_by_stack(settings.data_dir) else ():
        if not any(file.startswith(f"{name}-") for file in told):
            log = settings.data_dir / "logs" / f"{name}.log"
            yield Finding(
                "workers", "fault", f"the {name} has not said anything", f"read {log}; pilothouse up starts it"
            )
    for name, words in told.items():
        yield from _worker(settings, name, words)
    if not told and not told_by_stack(settings.data_dir):
        yield Finding("workers", "well", f"none has run on {settings.data_dir}: ask where they run")


def _worker(settings: Settings, name: str, told: dict[str, Any]) -> Iterator[Finding]:
    found = fitness(told, time.time_ns() // 1_000)
    log = settings.data_dir / "logs" / f"{name.rpartition('-')[0]}.log"
    if not found.live:
        yield Finding(
            "workers", "fault", f"{name}: {found.why}", f"start it again (pilothouse up); its last words: {log}"
        )
        return
    waiting = sum(each for each in (told.get("lag") or {}).values() if isinstance(each, int))
    if not found.ready:
        yield Finding("workers", "fault", f"{name} lives and does no work: {found.why}", f"read {log}")
    elif waiting > LATE_RECORDS:
        more = "if it does not fall, start another of a --slot of its own, on more partitions"
        yield Finding("workers", "warning", f"{name}: {waiting} records wait for it", more)
    else:
        yield Finding("workers", "well", f"{name} works, {waiting} records wait for it")
    if told.get("version") != version("pilothouse"):
        skew = f"{name} is of version {told.get('version')}, this command of {version('pilothouse')}"
        yield Finding(
            "versions", "warning", skew, "upgrade the governor and the archiver before any trainer, then the rest"
        )
    if _changed_since(settings.policy_file, told.get("began_at")) and told.get("role") == "governor":
        old = f"{settings.policy_file} was changed after {name} read it: new runs get the older text"
        yield Finding("policies", "warning", old, "start the governor again, or pilothouse policy activate")


def _changed_since(path: Path | None, began_at: Any) -> bool:
    if path is None or not isinstance(began_at, int) or not path.exists():
        return False
    files = [path, *path.glob("*")] if path.is_dir() else [path]
    return any(file.stat().st_mtime > began_at / 1e6 for file in files)


def policies(settings: Settings) -> Iterator[Finding]:
    """Whether what new runs are to be given can be read."""
    from ...stream_processors.policy_text import read_policies

    known = read_policies(settings.policy_file).policies
    named = ", ".join(policy.name for policy in known) or "the shipped one, which only observes"
    yield Finding("policies", "well", f"new runs are given {named}")


def keys(settings: Settings) -> Iterator[Finding]:
    """Whether what is signed here is believed here, and the keys can be read."""
    from ...keyring import refuse_unbelieved, sealing_key, signer_of, trust_of

    sealing_key(settings)
    held, trust = signer_of(settings).held(), trust_of(settings)()
    for role in sorted({key.role for key in held}):
        refuse_unbelieved(held, trust, role)
    if not held and not trust.keys:
        found = "nothing is signed: whoever can write to the log can steer every run"
        yield Finding("keys", "warning", found, "pilothouse keys new governor, and the same for operator")
    else:
        yield Finding("keys", "well", f"{len(held)} to sign with, {len(trust.keys)} trusted")


def disks(settings: Settings) -> Iterator[Finding]:
    """The room where the archive, the spool and the logs are kept."""
    for folder in {_existing(settings.data_dir), _existing(settings.spool)}:
        room = shutil.disk_usage(folder)
        found = f"{room.free / 1024**3:.1f} GiB of {room.total / 1024**3:.1f} are free at {folder}"
        if room.free < LITTLE_FREE:
            keep = (
                "make room; PILOTHOUSE_KEEP_STEPS_DAYS, …_EVIDENCE_DAYS and …_TICKS_DAYS say how long history is kept"
            )
            yield Finding("disk", "fault" if room.free < LEAST_FREE else "warning", found, keep)
        else:
            yield Finding("disk", "well", found)


def spool(settings: Settings) -> Iterator[Finding]:
    """What dead trainers left unsent."""
    from ...producers.delivery.leftovers import find_leftovers

    left = find_leftovers(settings.spool)
    dead = [one for one in left if not one.owner]
    if dead:
        runs = len({one.run_id for one in dead})
        found = (
            f"{sum(one.calls for one in dead)} calls of {len(dead)} dead writers ({runs} runs) wait at {settings.spool}"
        )
        yield Finding("spool", "warning", found, "pilothouse spool list, then pilothouse spool push")
    else:
        yield Finding("spool", "well", f"{len(left)} writers spool, all alive" if left else "empty")


def leftovers(settings: Settings) -> Iterator[Finding]:
    """What commands that were killed left in the data directory."""
    from ...storage.backup import BACKUPS
    from ..storage_command import UNFINISHED

    half = [*(settings.data_dir / "archive" / BACKUPS).glob("*"), *settings.data_dir.glob(UNFINISHED)]
    for folder in half:
        if time.time() - folder.stat().st_mtime > LEFT_AFTER_SECONDS:
            yield Finding("leftovers", "warning", f"{folder} is what a killed command left", f"rm -r {folder}")


def _existing(folder: Path) -> Path:
    """The folder, or the one above it that is there."""
    return next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
