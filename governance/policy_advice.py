"""The clause `advise` of a policy's rule: who is asked before the rule acts, and what they may choose.

Part of `policy`; what comes of it is `advice`.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from ..events.action_surface import ActionChoice

Advisor = Literal["memory", "llm"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AdviceBudget(_Part):
    """What each advisor of a run may be asked, over the run's whole life; without `cost_usd` only calls are counted.
    One answer may cost more than what is left: it is counted when it has come.
    """

    calls: Annotated[int, Field(ge=1, le=10_000)] = 20
    cost_usd: Annotated[float, Field(gt=0.0, le=100_000.0)] | None = None


class Advise(_Part):
    """Who is asked before the rule acts, one after the other until one proposes something, and what they may choose.

    What is proposed takes the place of the ladder's next action; an answer that takes longer than `within_seconds` is
    stale.
    """

    advisors: Annotated[tuple[Advisor, ...], Field(min_length=1, max_length=4)]
    choose_from: Annotated[tuple[ActionChoice, ...], Field(min_length=1, max_length=16)]
    within_seconds: Annotated[int, Field(ge=1, le=3_600)] = 30
    budget: AdviceBudget = AdviceBudget()

    @field_validator("advisors")
    @classmethod
    def _each_once(cls, advisors: tuple[Advisor, ...]) -> tuple[Advisor, ...]:
        if len(set(advisors)) < len(advisors):
            raise PydanticCustomError("advisors", "each advisor is asked once: name it once")
        return advisors
