"""Finds the runs in a file or below a folder, and knows by looking what wrote each.

`cli.import_command` calls `find`; what it returns is read by `survey` and fed by `stream_processors.importing`. Links
are not followed, so that nothing outside of the named folder is read.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from ...events.errors import FileRefused
from . import huggingface, mlflow_store, tensorboard
from .huggingface import TrainerState
from .mlflow_store import RunFolder
from .source import Source
from .tables import Table
from .tensorboard import EventFiles
from .wandb_offline import OfflineRun

MAX_ENTRIES = 200_000
MAX_DEPTH = 16
NAME_CHARS = 200
SQLITE = b"SQLite format 3\0"
ZIP = b"PK"
TABLES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
DATABASES = (".db", ".sqlite", ".sqlite3")
STATE = "trainer_state.json"


class Format(StrEnum):
    """What `--from` may say."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"
    HUGGINGFACE = "huggingface"
    LIGHTNING = "lightning"
    CSV = "csv"
    JSONL = "jsonl"
    PILOTHOUSE = "pilothouse"


@dataclass(frozen=True)
class Exported:
    """A file of `pilothouse export`: no log of others', but a history as it was."""

    path: Path
    format: str = "pilothouse"


@dataclass
class Found:
    """What there is to import, and a line for each file that looked like it and is none."""

    sources: list[Source] = field(default_factory=list)
    exports: list[Exported] = field(default_factory=list)
    refused: list[tuple[Path, str]] = field(default_factory=list)


def find(path: Path, only: Format | None = None, wanted: Mapping[str, str] | None = None) -> Found:
    """The runs in `path`, in the order of their names.

    Raises:
        FileRefused: there is nothing of that name, or it is too much.
    """
    finder = _Finder(path, only, wanted or {})
    if path.is_dir():
        finder.look_into(path, 0)
    elif path.is_file():
        finder.look_at(path, named=True)
    else:
        raise FileRefused(f"{path}: there is no such file or folder")
    return finder.found


class _Finder:
    def __init__(self, root: Path, only: Format | None, wanted: Mapping[str, str]) -> None:
        self.found = Found()
        self._root = root
        self._only = only
        self._wanted = wanted
        self._entries = 0

    def look_into(self, folder: Path, depth: int) -> None:
        files, folders = self._listed(folder)
        names = {file.name for file in files}
        if "meta.yaml" in names and any(below.name == "metrics" for below in folders):
            self._add(RunFolder(folder))
            return
        if any(file.match(tensorboard.PATTERN) for file in files):
            self._add(EventFiles(folder, self._name(folder)))
        states = [file for file in (folder / STATE, *folder.glob(f"checkpoint-*/{STATE}")) if file.is_file()]
        if states:
            self._add(TrainerState(max(states, key=huggingface.progress), self._name(folder)))
        for file in files:
            if file.name != STATE and not file.match(tensorboard.PATTERN):
                self.look_at(file, named=False)
        of_states = {state.parent for state in states}
        if depth < MAX_DEPTH and not any(file.suffix == ".wandb" for file in files):
            for below in folders:
                if below not in of_states:
                    self.look_into(below, depth + 1)

    def _listed(self, folder: Path) -> tuple[list[Path], list[Path]]:
        try:
            with os.scandir(folder) as entries:
                found = sorted((entry for entry in entries if not entry.is_symlink()), key=lambda entry: entry.name)
        except OSError as error:
            self.found.refused.append((folder, f"cannot be read: {error.strerror}"))
            return [], []
        self._entries += len(found)
        if self._entries > MAX_ENTRIES:
            raise FileRefused(f"{self._root}: holds over {MAX_ENTRIES} files; name one of its folders")
        files = [Path(entry.path) for entry in found if entry.is_file()]
        return files, [Path(entry.path) for entry in found if entry.is_dir() and not entry.name.startswith(".")]

    def look_at(self, file: Path, *, named: bool) -> None:
        """`named`: by the person, so that what it is not recognised by its name is looked for in it."""
        try:
            for source in self._sources(file, named):
                self._add(source)
        except FileRefused as error:
            self.found.refused.append((file, str(error).removeprefix(f"{file}: ")))

    def _sources(self, file: Path, named: bool) -> "Iterator[Source | Exported]":
        form = self._only.value if self._only is not None and named else self._format(file, named)
        match form:
            case "csv" | "jsonl" | "lightning":
                if file.stat().st_size or named:
                    yield Table(file, self._name(file), form, self._wanted)
            case "wandb":
                yield OfflineRun(file)
            case "huggingface":
                yield TrainerState(file, self._name(file.parent if file.name == STATE else file))
            case "mlflow":
                yield from mlflow_store.runs_in(file)
            case "tensorboard":
                yield EventFiles(file, self._name(file))
            case "pilothouse":
                yield Exported(file)
            case _:
                if named:
                    raise FileRefused(f"{file}: is nothing that is known here; say what wrote it with --from")

    def _format(self, file: Path, named: bool) -> str:
        suffix = file.suffix.lower()
        if file.name == "metrics.csv" and (file.parent / "hparams.yaml").is_file():
            return "lightning"
        if suffix in TABLES:
            return TABLES[suffix]
        if file.name == STATE:
            return "huggingface"
        if suffix not in (".wandb", ".zip", ".pilothouse", ".json", *DATABASES) and not named:
            return ""
        return self._by_content(file, suffix)

    def _by_content(self, file: Path, suffix: str) -> str:
        try:
            with file.open("rb") as opened:
                head = opened.read(64)
        except OSError as error:
            raise FileRefused(f"{file}: cannot be read: {error.strerror}") from error
        if head.startswith(SQLITE):
            return "mlflow"
        if head.startswith(b":W&B") or suffix == ".wandb":
            return "wandb"
        if file.match(tensorboard.PATTERN):
            return "tensorboard"
        if head.startswith(ZIP):
            return "pilothouse"
        return "jsonl" if head.lstrip()[:1] == b"{" and suffix != ".json" else ""

    def _add(self, source: "Source | Exported") -> None:
        if self._only is not None and source.format != self._only:
            return
        if isinstance(source, Exported):
            self.found.exports.append(source)
        else:
            self.found.sources.append(source)

    def _name(self, path: Path) -> str:
        """The path below what was named, with dots for slashes; of that itself, its own name."""
        if path == self._root:
            whole = path.resolve()
            is_version = path.is_dir() and whole.name.startswith("version_")
            parts = [whole.parent.name, whole.name] if is_version else [whole.name if path.is_dir() else whole.stem]
        else:
            below = path.relative_to(self._root) if path.is_relative_to(self._root) else Path(path.resolve().name)
            parts = list(below.parts if path.is_dir() else below.with_suffix("").parts)
        if path.is_file() and parts[-1] == "metrics" and len(parts) > 1:
            parts.pop()  # Lightning's: the folder has the name
        elif path.is_file() and path.name == "metrics.csv":
            parts = [path.resolve().parent.parent.name, path.resolve().parent.name]
        return ".".join(part for part in parts if part)[-NAME_CHARS:] or "imported"
