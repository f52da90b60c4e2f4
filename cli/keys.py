"""`pilothouse keys`: make, list, rotate and retire the keys that commands are signed with. The work is `key_files`'."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .stack_commands import AsJson, DataDir

if TYPE_CHECKING:
    from ..events.signing import KeyRole
    from .key_files import KeyFolder

keys = typer.Typer(name="keys", no_args_is_help=True, help="The keys that commands are signed with, and whom to trust.")

Folder = Annotated[Path | None, typer.Option("--keys", help="The folder of keys [default: keys in the data directory]")]
Name = Annotated[str, typer.Option("--name", help="What the key is called in audits", show_default=False)]
ENCRYPTION = "encryption"


@keys.command("new")
def new(
    role: Annotated[str, typer.Argument(help="governor, operator, advisor; or encryption: for what lies on disks")],
    name: Name = "",
    keys_dir: Folder = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key, and trust it. A role that has one already gets another by `keys rotate`."""
    from ..events.errors import UserMistake
    from .rendering import print_line

    folder = _folder(keys_dir, data_dir)
    if role == ENCRYPTION:
        print_line(f"PILOTHOUSE_ENCRYPTION_KEY_FILE={folder.add_encryption()}")
        print_line("keep a copy where the data is not: without it nothing that it encrypted can be read")
        return
    known = _role(role)
    if folder.signing(known):
        raise UserMistake(f"the {role} has a key already: `pilothouse keys rotate {role}` makes another beside it")
    _add(folder, known, name)


@keys.command("ensure")
def ensure(keys_dir: Folder = None, data_dir: DataDir = None) -> None:
    """Make one key for each role that has none, as `up` does for its own stack; doing it again changes nothing."""
    from .rendering import print_line

    folder = _folder(keys_dir, data_dir)
    folder.ensure()
    print_line(f"{len(folder.trusted())} keys in {folder.path}")


@keys.command("rotate")
def rotate(
    role: Annotated[str, typer.Argument(help="governor, operator or advisor")],
    name: Name = "",
    keys_dir: Folder = None,
    data_dir: DataDir = None,
) -> None:
    """Make another key for this role. Both sign until the old one is retired, and running processes take it up."""
    from .rendering import print_line

    folder = _folder(keys_dir, data_dir)
    known = _role(role)
    old = [key.public for key in folder.signing(known)]
    _add(folder, known, name)
    for key in old:
        print_line(f"when everybody trusts the new one: pilothouse keys retire {key.id}")


@keys.command("retire")
def retire(
    key: Annotated[str, typer.Argument(help="Its id or its name")],
    keys_dir: Folder = None,
    data_dir: DataDir = None,
) -> None:
    """Let a key sign no more and be obeyed no more; audits still know what it signed."""
    from .rendering import print_line

    gone = _folder(keys_dir, data_dir).retire(key)
    print_line(f"{gone.id} ({gone.name}, {gone.role}) is retired; give trainers their trusted keys anew")


@keys.command("list")
def list_keys(keys_dir: Folder = None, data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """The trusted keys, which of them sign here, and the line by which others are told to trust each."""
    from ..events.signing import ROLES
    from .rendering import show_rows

    folder = _folder(keys_dir, data_dir)
    here = {key.public.id for role in ROLES for key in folder.signing(role)}
    rows = [
        {
            "id": key.id,
            "role": key.role,
            "name": key.name,
            "state": "retired" if key.retired else "in use",
            "signs_here": key.id in here,
            "line": key.line(),
        }
        for key in folder.trusted()
    ]
    show_rows(rows, as_json=as_json, empty=f"no keys in {folder.path}: `pilothouse keys new governor` makes one")


def _add(folder: "KeyFolder", role: "KeyRole", name: str) -> None:
    from .key_files import TRUSTED_FILE, private_file
    from .rendering import print_line

    taken = len([key for key in folder.trusted() if key.role == role])
    key = folder.add(role, name or f"{role}-{taken + 1}")
    print_line(f"{key.public.id}  {key.public.line()}")
    print_line(f"who signs as {role}:   PILOTHOUSE_SIGNING_KEY_FILE={folder.path / private_file(role)}")
    print_line(f"everybody, trainers too: PILOTHOUSE_TRUSTED_KEYS_FILE={folder.path / TRUSTED_FILE}")


def _folder(keys_dir: Path | None, data_dir: Path | None) -> "KeyFolder":
    from ..settings import load_settings
    from .key_files import KEYS, KeyFolder

    return KeyFolder((keys_dir or load_settings(os.environ, data_dir=data_dir).data_dir / KEYS).absolute())


def _role(word: str) -> "KeyRole":
    from ..events.errors import UserMistake
    from ..events.signing import ROLES

    for role in ROLES:
        if word == role:
            return role
    raise UserMistake(f"no keys for {word!r}: there are {', '.join(ROLES)} and {ENCRYPTION}")
