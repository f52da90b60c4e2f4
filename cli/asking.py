"""Which advisors policies ask, and what is missing for an answer: said where a person can still do something about it.

Used by `up`, which runs the advisor's worker where it is asked, and by `policy activate`.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..settings import Settings

if TYPE_CHECKING:
    from ..governance.policy import Policy

Asked = Mapping[str, Sequence[str]]
"""By advisor, the rules that ask it."""


def asked_by(policies: Iterable["Policy"]) -> dict[str, list[str]]:
    """Whom these policies ask. In mode observe nobody is asked."""
    asked: dict[str, list[str]] = {}
    for policy in policies:
        for rule in policy.rules if policy.mode != "observe" else ():
            for advisor in rule.advise.advisors if rule.advise is not None else ():
                asked.setdefault(advisor, []).append(f"{policy.name}/{rule.name}")
    return asked


def asked_in(path: Path | None) -> dict[str, list[str]]:
    """Whom the policies of this file or folder ask.

    Raises:
        PolicyInvalid: they cannot be used.
    """
    from ..governance.policy import load_policy
    from ..stream_processors.policy_text import read_policies

    return asked_by(load_policy(policy.text) for policy in read_policies(path).policies)


def unheard(asked: Asked, *, advisor_runs: bool) -> list[str]:
    """That nobody is there to answer, in a line; none where somebody is, or nobody asks."""
    if not asked or advisor_runs:
        return []
    rules = sorted({rule for each in asked.values() for rule in each})
    return [f"rule {', '.join(rules)} asks advisors, and none runs here: `pilothouse worker advisor`"]


def missing_for(asked: Asked, settings: Settings, *, advisor_runs: bool) -> list[str]:
    """What keeps these questions from being answered, a line each."""
    found = unheard(asked, advisor_runs=advisor_runs)
    if "llm" in asked and not settings.llm_model:
        said = "no model is configured (PILOTHOUSE_LLM_MODEL), so that it will propose nothing"
        found.append(f"rule {', '.join(asked['llm'])} asks the advisor llm, and {said}")
    elif "llm" in asked and find_spec("pydantic_ai") is None:
        found.append(f"rule {', '.join(asked['llm'])} asks the advisor llm, which needs pip install 'pilothouse[llm]'")
    return found
