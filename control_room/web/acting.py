"""What a person orders from the page: the very orders of the command line, answered by the same governor."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from ...events.actions import Action
from ...events.commands import CommandVerb
from ...storage.queries import known_run
from ..orders import as_fields, order_of, send
from .access import Needs, Person, via_page
from .answers import ABOUT_A_RUN, Answer
from .reading import Archive, RunId

WAIT_SECONDS = 4.0
"""For the governor's answer; what the ranks do is seen on the page."""
BARE = ("approve", "resume")
"""What needs no reason."""

router = APIRouter(prefix="/api", tags=["act"])


class Order(BaseModel):
    """`approve` and `decline` name an intervention, `intervene` brings an action, `silence` says for how many steps or
    seconds, and of which rule or condition if not of all.
    """

    model_config = ConfigDict(extra="forbid")

    verb: CommandVerb
    why: Annotated[str, Field(max_length=16_000)] = ""
    intervention_id: Annotated[str, Field(max_length=200)] = ""
    action: Action | None = None
    rule: Annotated[str, Field(max_length=200)] = ""
    condition: Annotated[str, Field(max_length=50)] | None = None
    steps: Annotated[int, Field(ge=0, le=10**9)] | None = None
    seconds: Annotated[int, Field(ge=0, le=10**9)] | None = None


@router.post("/run/orders", responses=ABOUT_A_RUN)
def order(
    request: Request,
    archive: Archive,
    run_id: RunId,
    given: Order,
    person: Annotated[Person, Depends(Needs("operator"))],
) -> Answer:
    """Put an order into the log in this person's name, and tell what the governor answered."""
    about: dict[str, Any] = given.model_dump(exclude={"verb", "why", "action"}, exclude_none=True)
    if given.action is not None:
        about["action"] = given.action
    told = order_of(
        run_id,
        given.verb,
        why=given.why,
        who=via_page(person),
        origin=f"control room, from {request.client.host if request.client else 'an unknown address'}",
        needs_why=given.verb not in BARE and not _ends_a_silence(given),
        **{name: value for name, value in about.items() if value != ""},
    )
    with archive.client() as client:
        known_run(client, run_id)
        return Answer(as_fields(send(client, request.app.state.settings, told, WAIT_SECONDS)))


def _ends_a_silence(given: Order) -> bool:
    return given.verb == "silence" and not given.steps and not given.seconds
