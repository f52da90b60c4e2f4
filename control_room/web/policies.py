"""Policies on the page: every one that ever governed a run, what differs between two, and what one would have done."""

from threading import Semaphore
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from ...governance.policy import load_policy
from ...governance.policy_diff import differences
from ...storage.history import read_decisions, stream_log
from ...storage.named import ask
from ...storage.queries import known_run
from ...stream_processors.backtest import backtest
from ...stream_processors.backtest_told import as_told
from ...stream_processors.policy_text import PolicySet, PolicyText
from .access import Needs
from .answers import Answer
from .policies_told import in_words
from .reading import Archive

MOST_POLICIES = 500
MOST_BACKTESTS = 2
"""At a time: each holds a core."""
Hash = Annotated[str, Query(min_length=1, max_length=200, description="A policy's hash")]
router = APIRouter(prefix="/api/policies", dependencies=[Depends(Needs("viewer"))], tags=["policies"])
_room = Semaphore(MOST_BACKTESTS)


class Trial(BaseModel):
    """A policy's text, to be tried on a run."""

    model_config = ConfigDict(extra="forbid")

    run: Annotated[str, Field(min_length=1, max_length=200)]
    text: Annotated[str, Field(min_length=1, max_length=200_000)]


@router.get("")
def policies(archive: Archive) -> Answer:
    """Every policy that governed a run, the latest first: its text, its words, and which runs it governs now."""
    with archive.client() as client:
        rows = ask(client, "policies", limit=MOST_POLICIES)
    return Answer([row | in_words(load_policy(row["text"])) for row in rows])


@router.get("/differences", responses={404: {"description": "no such policy"}})
def compared(archive: Archive, before: Hash, after: Hash) -> Answer:
    """What differs between two of them, rule by rule."""
    with archive.client() as client:
        texts = {row["policy_hash"]: row["text"] for row in ask(client, "policies", limit=MOST_POLICIES)}
    for wanted in (before, after):
        if wanted not in texts:
            raise HTTPException(404, f"no run was governed by a policy with the hash {wanted}")
    found = differences(load_policy(texts[before]), load_policy(texts[after]))
    return Answer([difference._asdict() | {"words": str(difference)} for difference in found])


@router.post(
    "/backtest",
    responses={
        400: {"description": "the policy is none"},
        404: {"description": "no such run"},
        503: {"description": "as many backtests run as may"},
    },
)
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
