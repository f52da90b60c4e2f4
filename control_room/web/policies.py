"""Policies on the page: every one that ever governed a run, what differs between two, what one would have done, and the
one that is to govern from now on.
"""

from difflib import unified_diff
from threading import Semaphore
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from ...events.errors import PolicyInvalid, UserMistake
from ...governance.policy import load_policy
from ...governance.policy_diff import differences
from ...storage.history import read_decisions, stream_log
from ...storage.named import ask
from ...storage.queries import known_run
from ...stream_processors.backtest import backtest
from ...stream_processors.backtest_told import as_told
from ...stream_processors.policy_text import PolicySet, PolicyText
from ..activation import activate_on, as_row, failed_trials
from .access import Needs, Person, via_page
from .answers import ABOUT_A_RUN, Answer
from .policies_told import in_words
from .reading import Archive

MOST_POLICIES = 500
MOST_TEXT = 65_536
"""Of a policy: more does not fit into its record (`PolicyActivated`)."""
MOST_BACKTESTS = 2
"""At a time: each holds a core."""
Hash = Annotated[str, Query(min_length=1, max_length=200, description="A policy's hash")]
router = APIRouter(
    prefix="/api/policies", dependencies=[Depends(Needs("viewer"))], responses=ABOUT_A_RUN, tags=["policies"]
)
_room = Semaphore(MOST_BACKTESTS)


class Trial(BaseModel):
    """A policy's text, to be tried on a run, or put in force for it."""

    model_config = ConfigDict(extra="forbid")

    run: Annotated[str, Field(min_length=1, max_length=200)]
    text: Annotated[str, Field(min_length=1, max_length=MOST_TEXT)]


@router.get("")
def policies(archive: Archive) -> Answer:
    """Every policy that governed a run, the latest first: its text, its words, and which runs it governs now. One that
    cannot be used says why, and governs nothing."""
    with archive.client() as client:
        rows = ask(client, "policies", limit=MOST_POLICIES)
    return Answer([row | _told(row["text"]) for row in rows])


def _told(text: str) -> dict[str, Any]:
    try:
        return in_words(load_policy(text))
    except PolicyInvalid as error:
        return {"mode": "", "words": {"cannot be used": str(error)}, "rules": []}


@router.get("/differences")
def compared(archive: Archive, before: Hash, after: Hash) -> Answer:
    """What differs between two of them: rule by rule in `words`, and line by line in `text` (a unified diff)."""
    with archive.client() as client:
        texts = {row["policy_hash"]: row["text"] for row in ask(client, "policies", limit=MOST_POLICIES)}
    for wanted in (before, after):
        if wanted not in texts:
            raise HTTPException(404, f"no run was governed by a policy with the hash {wanted}")
    was, now = texts[before], texts[after]
    found = differences(load_policy(was), load_policy(now))
    lines = unified_diff(was.splitlines(), now.splitlines(), before[:12], after[:12], lineterm="")
    rows = [difference._asdict() | {"words": str(difference)} for difference in found]
    return Answer({"differences": rows, "text": list(lines)})


@router.post("/backtest")
def tried(archive: Archive, trial: Trial) -> Answer:
    """What a policy would have said and done on an archived run, beside the one that governed it. Changes nothing."""
    load_policy(trial.text)
    candidate = PolicySet((PolicyText("tried", trial.text),))
    if not _room.acquire(blocking=False):
        raise HTTPException(503, "as many backtests run as may: try again in a moment")
    try:
        with archive.client() as client:
            known_run(client, trial.run)
            told = read_decisions(client, trial.run)
            return Answer(as_told(backtest(trial.run, stream_log(client, trial.run), candidate, told)))
    finally:
        _room.release()


@router.post("/activate")
def activated(
    request: Request, archive: Archive, trial: Trial, person: Annotated[Person, Depends(Needs("admin"))]
) -> Answer:
    """Let a policy govern a run from now on, in this person's name. It must be right, pass its own tests and apply to
    the run."""
    if failed := failed_trials(load_policy(trial.text), trial.text):
        raise UserMistake(f"{len(failed)} of the policy's own tests fail: {failed[0]!r}")
    with archive.client() as client:
        done = activate_on(
            client, request.app.state.settings, trial.run, trial.text, who=via_page(person), asked_for=True
        )
    return Answer(as_row(done))
