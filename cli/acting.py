"""An action as a person types it: `scale_lr factor=0.5`, `rollback checkpoint=120`. Used by `pilothouse intervene`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ..events.action_surface import KINDS
from ..events.actions import ACTION
from ..events.errors import UserMistake

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

NOT_ORDERED = ("revert",)
"""What did not help is put back by the governor."""


def action_of(client: "Client", run_id: str, kind: str, pairs: Sequence[str]) -> dict[str, Any]:
    """The action's fields; a checkpoint that is named by its step is looked up.

    Raises:
        UserMistake: there is no such action, its values are wrong, or the run has no such checkpoint.
    """
    fields = _fields(kind, pairs)
    if "checkpoint" in fields and kind == "rollback":
        fields["checkpoint"] = _checkpoint(client, run_id, str(fields["checkpoint"]))
    try:
        return dict(ACTION.validate_python(fields).model_dump())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"][1:])
        takes = ", ".join(name for name in KINDS[kind].model_fields if name != "action") or "nothing"
        raise UserMistake(f"{kind} {place}: {first['msg']}; it takes: {takes}".replace("  ", " ")) from error


def _fields(kind: str, pairs: Sequence[str]) -> dict[str, Any]:
    known = [name for name in KINDS if name not in NOT_ORDERED]
    if kind not in known:
        raise UserMistake(f"no action is called {kind!r}; there are: {', '.join(known)}")
    fields: dict[str, Any] = {"action": kind}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise UserMistake(f"{pair!r} is no value with its name; write it as factor=0.5")
        if name in fields:
            raise UserMistake(f"{name} is given twice")
        fields[name] = value
    return fields


def _checkpoint(client: "Client", run_id: str, named: str) -> dict[str, Any]:
    """By its step or the beginning of its id, the newest of the run's usable ones."""
    from ..storage.queries import checkpoints_of

    rows = [row for row in checkpoints_of(client, run_id) if not row["rejected"]]
    meant = [row for row in rows if str(row["step"]) == named or row["checkpoint_id"].startswith(named)]
    if not meant:
        there_are = ", ".join(str(row["step"]) for row in rows[-10:]) or "none"
        raise UserMistake(f"run {run_id} has no checkpoint {named!r} that could be gone back to; steps: {there_are}")
    return {name: meant[-1][name] for name in ("checkpoint_id", "step", "path", "manifest_sha256")}
