"""The one tool of `pilothouse mcp` that may lead to something: a suggestion, which waits for a person.

It goes into the log as an advisor's words in the name of the assistant's program; the governor holds it against the
policy's bounds and puts it before people (`governance.suggestions`). This waits a little for what the governor says.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from uuid import uuid4

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from ..events.errors import PilothouseError
from ..governance.suggestions import PREFIX

if TYPE_CHECKING:
    from ..events.commands import AdviceGiven

WAIT_SECONDS = 15.0
LOOK_EVERY = 0.3

Why = Annotated[str, Field(min_length=1, max_length=4_000, description="For the person who decides: what was seen")]
Values = Annotated[
    dict[str, float | int | str | bool] | None,
    Field(description="By their names: factor for scale_lr, value for set_clip, checkpoint (a step) for rollback"),
]


def suggestion_of(run_id: str, action: dict[str, Any], why: str, program: str) -> "AdviceGiven":
    """The record itself: an answer to a question of its own, by a writer of its own."""
    from ..events.commands import AdviceGiven
    from ..events.redaction import redacted_text

    name = "".join(each for each in program if each.isprintable() and not each.isspace()) or "assistant"
    return AdviceGiven.model_validate(
        {
            "at": time.time_ns() // 1_000,
            "run_id": run_id,
            "writer_id": f"mcp-{uuid4().hex}",
            "seq": 1,
            "request_id": f"unasked-{uuid4().hex}",
            "advisor": f"{PREFIX}{name[:100]}",
            "action": action,
            "why": redacted_text(why),
        }
    )


class Wish(NamedTuple):
    """What an assistant asked for, as it said it, and by which program."""

    run: str
    action: str
    why: str
    values: dict[str, Any]
    program: str


def propose(data_dir: Path | None, wish: Wish) -> dict[str, Any]:
    """Put a suggestion into the log, and say what the governor made of it.

    Raises:
        UserMistake: the action is none, or the run has ended.
    """
    from ..control_room.orders import refuse_ended
    from ..producers.delivery.kafka import send_fact
    from ..storage.queries import last_places
    from .acting import action_of
    from .reading import full_name, open_archive

    archive = open_archive(data_dir)
    with archive.client as client:
        run_id = full_name(client, wish.run)
        refuse_ended(client, run_id)
        chosen = action_of(client, run_id, wish.action, [f"{name}={value}" for name, value in wish.values.items()])
        given = suggestion_of(run_id, chosen, wish.why, wish.program)
        cursor = last_places(client, run_id)
        send_fact(archive.settings, given)
        said = _judged(client, given, cursor)
    return _in_words(given, said)


def _judged(client: Any, given: "AdviceGiven", cursor: Any) -> dict[str, Any] | None:
    from ..events.plain_json import body_of
    from ..storage.queries import events_of

    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        for row in events_of(client, given.run_id, kinds=["advice_judged"], limit=100, after=cursor):
            body = body_of(row)
            if body["request_id"] == given.request_id:
                return body
        time.sleep(LOOK_EVERY)
    return None


def _in_words(given: "AdviceGiven", said: dict[str, Any] | None) -> dict[str, Any]:
    run_id = given.run_id
    if said is None:
        return {"outcome": "sent", "note": f"in the log; the governor has not answered yet: ask timeline of {run_id}"}
    answer: dict[str, Any] = {"outcome": said["outcome"], "reason": said["reason"]}
    if said["outcome"] != "proposed":
        return answer
    named = said["intervention_id"]
    note = f"nothing is done unless a person agrees: pilothouse approve {run_id} {named[:8]}"
    return answer | {"intervention_id": named, "note": note}


class Suggesting:
    """The tool as the server offers it."""

    def __init__(self, data_dir: Path | None) -> None:
        self._data_dir = data_dir

    def propose_intervention(
        self,
        context: Context,
        run: Annotated[str, Field(description="The run's id, or its beginning")],
        action: Annotated[str, Field(description="scale_lr, set_clip, rollback, skip_batches, pause, stop, …")],
        why: Why,
        values: Values = None,
    ) -> dict[str, Any]:
        """Suggest an action for a run that goes on. A person must approve it before anything happens; without an
        answer in ten minutes it is declined. The policy's bounds hold, and one suggestion waits at a time."""
        told = context.session.client_params
        program = told.client_info.name if told is not None else ""
        try:
            return propose(self._data_dir, Wish(run, action, why, values or {}, program))
        except PilothouseError as error:
            raise ToolError(str(error)) from error
