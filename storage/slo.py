"""Service levels: the objectives of an `slo.yaml`, and the views of the archive that compute them.

`upgrade` reads the file and puts its views in force; people ask `slo`, `slo_burn` and `slo_samples` in SQL. What is
counted is SQL of the file itself, so that a formula can be read, changed and tried like any other query.

Burn rates are those of Google's Site Reliability Workbook (chapter 5): how many times as fast as the budget allows it
is being spent. 1 spends it exactly within the window; a page is usual at 14.4 over an hour, a ticket at 1 over three
days.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..events.errors import SettingsInvalid
from .named import statements

SHIPPED = Path(__file__).with_name("slo.yaml")
BURN_HOURS = (1, 6, 24, 72, 168, 720)
"""The windows of `slo_burn`, in hours."""

Words = Annotated[str, Field(min_length=1, max_length=500)]


class Objective(BaseModel):
    """One service level, as the file says it. `low` and `high` bound the figure, both inclusive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
    name: Words
    formula: Words
    target: Words
    samples: Annotated[str, Field(min_length=1, max_length=10_000)]
    value: Literal["ratio", "mean", "median", "p95", "count"]
    low: float | None = None
    high: float | None = None
    window_days: Annotated[float, Field(gt=0, le=366)]
    budget: Annotated[float, Field(ge=0, lt=1)] | None = None
    needs: Words

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.low is None and self.high is None:
            raise ValueError("give low, high or both: without a bound nothing can be missed")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}")
        if self.value == "count" and self.budget is not None:
            raise ValueError("a count has no budget: its high is what may happen in the window")
        return self


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    objectives: Annotated[list[Objective], Field(min_length=1)]


def load_objectives(path: Path = SHIPPED) -> list[Objective]:
    """
    Raises:
        SettingsInvalid: the file cannot be read or is wrong; every fault at once, with where it stands.
    """
    import yaml

    try:
        told = yaml.safe_load(path.read_text(encoding="utf-8"))
        objectives = _File.model_validate(told).objectives
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsInvalid(f"the service levels in {path} cannot be read: {error}") from error
    except ValidationError as error:
        faults = [f"{_where(fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()]
        raise SettingsInvalid(f"the service levels in {path} are wrong:\n  " + "\n  ".join(faults)) from error
    names = [objective.id for objective in objectives]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsInvalid(f"the service levels in {path} name {', '.join(twice)} twice")
    return objectives


def view_statements(objectives: Sequence[Objective]) -> list[str]:
    """SQL that makes the views of these objectives, in order."""
    bounds = "\nUNION ALL\n".join(_declared(objective) for objective in objectives)
    samples = "\nUNION ALL\n".join(_sampled(objective) for objective in objectives)
    hours = ", ".join(map(str, BURN_HOURS))
    views = {"slo_objectives": bounds, "slo_samples": samples}
    made = [f"CREATE OR REPLACE VIEW {name} AS\n{sql}" for name, sql in views.items()]
    return [*made, statements()["slo_view"], statements()["slo_burn_view"].replace("BURN_HOURS", hours)]


def _declared(objective: Objective) -> str:
    texts = {name: _text(getattr(objective, name)) for name in ("id", "name", "formula", "target", "value", "needs")}
    figures = {name: _figure(getattr(objective, name)) for name in ("low", "high", "window_days", "budget")}
    columns = [f"{text} AS {'aggregate' if name == 'value' else name}" for name, text in texts.items()]
    return "SELECT " + ", ".join([*columns, *(f"{figure} AS {name}" for name, figure in figures.items())])


def _sampled(objective: Objective) -> str:
    return (
        f"SELECT {_text(objective.id)} AS id, run_id, toNullable(at) AS at, toFloat64(value) AS value, "
        f"toFloat64(good) AS good, toFloat64(total) AS total\nFROM\n(\n{objective.samples.strip()}\n)"
    )


def _text(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _figure(value: float | None) -> str:
    return f"CAST({'NULL' if value is None else repr(float(value))}, 'Nullable(Float64)')"


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "file"
