"""The token of the account that owns a data directory: the control room's administrator."""

import os
import secrets
from pathlib import Path

OWN_TOKEN = "control_room_token"


def own_token(data_dir: Path) -> str:
    """The token, made at the first time; nobody else may read it."""
    file = data_dir / OWN_TOKEN
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_text().strip()
    with os.fdopen(descriptor, "w") as made:
        made.write(token := secrets.token_urlsafe(32))
    return token


def page_of(data_dir: Path, port: int, host: str = "127.0.0.1") -> str:
    """Where the control room is, with the token in the part of the address that no server and no log is told."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/#token={own_token(data_dir)}"
