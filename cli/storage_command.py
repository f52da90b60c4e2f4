"""`pilothouse storage backup` and `restore`: the archive of a data directory in a folder of its own, and back. `grants`
says who may do what on a ClickHouse server.

Registered by `main`. Thin: `storage.backup` asks the engine, `storage.backup_files` seals and checks, and here is said
what is where. A ClickHouse server is backed up by its own statements, to where its administrator lets it write.
"""

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..settings import Settings
    from ..storage.backup_files import Manifest
    from .reading import Archive

storage = typer.Typer(
    name="storage", no_args_is_help=True, help="The archive: back it up, bring it back, say who may do what with it."
)

DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Whose archive [default: ~/.pilothouse]")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object")]

UNFINISHED = ".restoring"
"""In the data directory, beside where the archive will be: a restore that was cut off is begun anew."""


@storage.command("backup")
def backup(
    folder: Annotated[
        Path | None, typer.Argument(help="A folder that is not there yet [default: DATA_DIR/backups/TIME]")
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Copy the archive as it is at one moment into a folder; a stack that runs works on meanwhile."""
    from ..settings import load_settings
    from .own_archive import archive_as_it_is, is_elsewhere
    from .rendering import json_line, print_line

    settings = load_settings(os.environ, data_dir=data_dir)
    if is_elsewhere(settings):
        raise _servers_own("BACKUP DATABASE pilothouse TO")
    _refuse_encrypted(settings)
    name = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    target = (folder or settings.data_dir / "backups" / name).absolute()
    _refuse_taken(target)
    with archive_as_it_is(settings) as archive:
        manifest = _backed_up(archive, f"{name}-{os.getpid()}", target)
    told = {"folder": str(target), "bytes": manifest.size, "rows": manifest.rows, "epoch": manifest.epoch}
    size = f"{sum(manifest.rows.values())} rows in {len(manifest.files)} files, {manifest.size} bytes"
    print_line(json_line(told) if as_json else f"the archive of {settings.data_dir} is in {target}: {size}")


@storage.command("restore")
def restore(
    folder: Annotated[Path, typer.Argument(help="What `pilothouse storage backup` wrote", show_default=False)],
    data_dir: Annotated[
        Path | None, typer.Option("--data-dir", help="A data directory without an archive [default: ~/.pilothouse]")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a backup to the last byte and bring it back into a data directory that has no archive."""
    from ..events.errors import DirectoryInUse
    from ..settings import load_settings
    from ..storage.backup_files import open_sealed
    from .extras import LOCAL, require
    from .own_archive import is_elsewhere
    from .rendering import json_line, print_line

    require(LOCAL, "a restore")
    settings = load_settings(os.environ, data_dir=data_dir)
    if is_elsewhere(settings):
        raise _servers_own("RESTORE DATABASE pilothouse FROM")
    _refuse_encrypted(settings)
    home = settings.data_dir.absolute()
    if (home / "archive").exists():
        raise DirectoryInUse(
            f"{home} has an archive, and a restore adds to none: name another --data-dir, or move that archive away"
        )
    manifest = open_sealed(folder)
    done = _brought_back(folder, manifest, settings.model_copy(update={"data_dir": home / UNFINISHED}))
    told = {"data_dir": str(home), "rows": manifest.rows, "epoch": manifest.epoch, "done": done}
    line = f"{sum(manifest.rows.values())} rows are back; `pilothouse up --data-dir {home}` goes on with them"
    print_line(json_line(told) if as_json else "\n".join([*done, line]))


@storage.command("grants")
def grants(  # noqa: PLR0913, PLR0917  # a command's options
    user: Annotated[
        list[str] | None,
        typer.Option("--user", metavar="ROLE=NAME", help="What archiver, reader, … is called at yours"),
    ] = None,
    password_file: Annotated[
        list[str] | None,
        typer.Option("--password-file", metavar="ROLE=FILE", help="Make this user, with the password in this file"),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Put them in force on the server, as its administrator")
    ] = False,
    commands: Annotated[bool, typer.Option("--commands", help="As SQL, for clickhouse-client")] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """The least that migrations, each worker, the control room and people must be allowed on a ClickHouse server."""
    from urllib.parse import unquote, urlsplit

    from ..settings import load_settings
    from ..storage import grants as rights
    from ..storage.connect import DEFAULT_DATABASE, connect
    from .rendering import print_line, show_rows

    settings = load_settings(os.environ, data_dir=data_dir)
    database = unquote(urlsplit(settings.clickhouse_url).path.strip("/")) or DEFAULT_DATABASE
    names = rights.names_of(_pairs(user))
    hashes = rights.hashes_of({role: _secret(file) for role, file in _pairs(password_file).items()})
    wanted = list(rights.statements(names, hashes, database, settings.clickhouse_cluster))
    if apply:
        rights.apply(connect(settings), wanted)
        print_line(f"the rights of {len(names)} users are in force on {database}")
    elif commands:
        for statement in wanted:
            print_line(f"{statement};")
    else:
        show_rows(rights.rows(names, database, settings.clickhouse_cluster), as_json=as_json)


def _pairs(given: list[str] | None) -> dict[str, str]:
    return {role: value for role, _, value in (pair.partition("=") for pair in given or ())}


def _secret(file: str) -> str:
    from ..events.errors import UserMistake

    try:
        return Path(file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, ValueError, RuntimeError) as error:
        raise UserMistake(f"--password-file {file}: {error}") from error


def _servers_own(statement: str) -> Exception:
    from ..events.errors import UserMistake

    return UserMistake(
        "the settings name a ClickHouse server, which is backed up and restored by its own statement, to where its "
        f"administrator lets it write (docs/operations.md): {statement} Disk('backups', 'NAME')"
    )


def _refuse_encrypted(settings: "Settings") -> None:
    """What such an archive would be in a backup, and whether it came back, was never seen: better none than that."""
    from ..events.errors import UserMistake
    from ..keyring import sealing_key
    from ..storage.engine_encryption import CONFIG_FILE

    if sealing_key(settings) is not None or (settings.data_dir / "archive" / CONFIG_FILE).exists():
        raise UserMistake(
            "an encrypted archive is not backed up or restored by this command: stop the stack, and copy its data "
            "directory as a whole and with its links (cp -a), the key apart"
        )


def _refuse_taken(target: Path) -> None:
    from ..events.errors import UserMistake

    if target.exists() or target.is_symlink():
        raise UserMistake(f"{target} is there already: a backup makes its own folder; name another")


def _backed_up(archive: "Archive", name: str, target: Path) -> "Manifest":
    """The folder is the engine's until it is complete, then it is moved and sealed."""
    from importlib.metadata import version

    from ..events.errors import UserMistake
    from ..storage import backup as engine
    from ..storage.backup_files import Manifest, contents, seal
    from ..storage.named import ask
    from .stack_file import read_epoch

    made = archive.settings.data_dir / "archive" / engine.BACKUPS / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserMistake(f"{target.parent} cannot be made: {error}") from error
    try:
        engine.take(archive.client, name)
        shutil.move(made, target)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    epoch = read_epoch(archive.settings.data_dir)
    manifest = Manifest(
        made_at=time.time_ns() // 1_000,
        pilothouse=version("pilothouse"),
        clickhouse=str(archive.client.server_version),
        migrations=max((row["number"] for row in ask(archive.client, "applied_migrations")), default=0),
        epoch=epoch.number,
        cluster_id=epoch.cluster_id,
        rows=engine.rows_in(target),
        files=contents(target),
    )
    seal(target, manifest)
    return manifest


def _brought_back(folder: Path, manifest: "Manifest", settings: "Settings") -> list[str]:
    """Restored beside its place, and put there when all of it is back: what migrations were run on it."""
    from ..events.errors import FileRefused
    from ..storage import backup as engine
    from ..storage.backup_files import stage
    from ..storage.ownership import DirectoryLock
    from ..storage.upgrade import bring_up_to_date
    from .own_archive import bare_archive
    from .stack_file import Epoch, write_epoch

    beside, home = settings.data_dir, settings.data_dir.parent
    lock = DirectoryLock.take(home)  # as `up` does: no second restore, and no stack, meanwhile
    try:
        shutil.rmtree(beside, ignore_errors=True)
        staged = beside / "archive" / engine.BACKUPS / "restored"
        staged.parent.mkdir(parents=True)
        stage(folder, staged)
        with bare_archive(settings) as archive:
            rows = engine.bring_back(archive.client, staged.name)
            if any(rows.get(name, 0) != count for name, count in manifest.rows.items()):
                raise FileRefused(f"{folder}: {manifest.rows} rows were backed up, and {rows} came back")
            done = bring_up_to_date(archive.client, settings)
        shutil.rmtree(staged)
        (beside / "archive").rename(home / "archive")
        if manifest.epoch:
            write_epoch(home, Epoch(manifest.epoch, manifest.cluster_id))
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        lock.release()
    return done
