"""What a run says of itself at its start: any object as plain data, and no object that costs the run its beginning."""

import dataclasses
import json
import logging
import math
from argparse import Namespace
from collections.abc import Iterator, Mapping
from enum import Enum, IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pytest
from pydantic import BaseModel

from pilothouse.events.errors import UserMistake
from pilothouse.events.telemetry import RunStarted
from pilothouse.producers.delivery.batching import Told
from pilothouse.producers.delivery.telling import refusal
from pilothouse.producers.plain import why
from pilothouse.producers.surroundings.description import (
    CONFIG_BYTES,
    TRUNCATED_KEY,
    Description,
    described,
    refuse_mistakes,
)
from pilothouse.tests.outbox_bench import WHO

REQUIRED = {"reason": "start", "first_step": 0, "world_size": 1}


def configured(config: object) -> dict[str, Any]:
    """The config of a run that was given this one; the whole description is one that an event can carry."""
    fields = described({"config": config})
    assert refusal(Told(WHO, 1, RunStarted, REQUIRED | fields)) is None
    config_told: dict[str, Any] = fields["config"]
    return config_told


class Silent:
    """It has no text."""

    def __repr__(self) -> str:
        raise RuntimeError("no\ntext")


class Vague(Mapping[str, object]):
    """As OmegaConf's are: one of its values is missing."""

    def __getitem__(self, name: str) -> object:
        if name == "data":
            raise KeyError("Missing mandatory\nvalue: data")
        return 0.1

    def __iter__(self) -> Iterator[str]:
        return iter(("lr", "data"))

    def __len__(self) -> int:
        return 2


class Undumpable(BaseModel):
    def model_dump(self, **_: Any) -> dict[str, Any]:
        raise RuntimeError("the model\nis sad")


class Stealthy(Mapping[str, object]):
    def __getitem__(self, name: str) -> object:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError("no keys")

    def __len__(self) -> int:
        return 0


@dataclasses.dataclass
class Config:
    lr: float
    layers: tuple[int, ...]


class Precision(IntEnum):
    HALF = 16


class Schedule(str, Enum):  # noqa: UP042  # how many configurations still write it
    COSINE = "cosine"


class Unnamed(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "config,plain",
    [
        (None, {}),
        ({"lr": 0.1, 3: "x"}, {"lr": 0.1, "3": "x"}),
        (Config(0.1, (2, 3)), {"lr": 0.1, "layers": [2, 3]}),
        (Namespace(lr=0.1, out=Path("/tmp/x")), {"lr": 0.1, "out": "/tmp/x"}),
        (SimpleNamespace(lr=0.1, on=True), {"lr": 0.1, "on": True}),
        ({"big": 2**70}, {"big": str(2**70)}),
        ({"lr": numpy.float64(0.1), "n": numpy.int64(3)}, {"lr": 0.1, "n": "3"}),
        ({"bits": Precision.HALF, "schedule": Schedule.COSINE}, {"bits": 16, "schedule": "Schedule.COSINE"}),
        ([1, 2], {"config": [1, 2]}),
    ],
)
def test_any_kind_of_config_becomes_plain_data(config: object, plain: dict[str, object]) -> None:
    assert configured(config) == plain


@pytest.mark.parametrize(
    "bad,error",
    [
        (Silent(), "RuntimeError: no text"),
        (Undumpable(), "RuntimeError: the model is sad"),
        (Stealthy(), "RuntimeError: no keys"),
        (Unnamed("x"), "RuntimeError: no"),
        pytest.param(10**5_000, "ValueError: Exceeds the limit", id="digits"),
    ],
)
def test_a_value_that_cannot_be_read_is_marked_and_said_in_one_line_and_the_others_are_kept(
    bad: object, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = configured({"model": {"width": 64, "bad": bad}, "lr": 0.1})
    assert config["lr"] == 0.1
    assert config["model"]["width"] == 64
    assert config["model"]["bad"].startswith(f"[unreadable by pilothouse: {error}")
    (record,) = caplog.records
    line = record.getMessage()
    assert "\n" not in line
    assert f"config.model.bad cannot be read ({error}" in line
    assert f"{Path(__file__).name}:" in line


@pytest.mark.parametrize("config", [Silent(), Undumpable(), Stealthy()])
def test_a_config_that_cannot_be_read_at_all_is_a_mark(config: object) -> None:
    assert configured(config)["config"].startswith("[unreadable by pilothouse: RuntimeError")


def test_a_missing_value_of_a_mapping_does_not_cost_the_others() -> None:
    config = configured(Vague())
    assert config["lr"] == 0.1
    assert config["data"].startswith("[unreadable by pilothouse: KeyError")


def test_a_key_that_cannot_be_read_does_not_cost_its_value(caplog: pytest.LogCaptureFixture) -> None:
    assert configured({Silent(): 7}) == {"[unreadable by pilothouse: RuntimeError: no text]": 7}
    assert "a key of config cannot be read" in caplog.text


def test_an_error_that_has_no_text_either_is_its_type() -> None:
    assert why(RuntimeError(Silent())) == "RuntimeError"


def test_many_bad_values_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    configured({f"key{index}": Silent() for index in range(300)})
    (record,) = caplog.records
    assert record.getMessage().endswith("and 295 more")


def test_a_huge_string_in_the_config_is_cut_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="pilothouse"):
        config = configured({"lr": 0.1, "prompt": "x" * 10_000_000})
    assert config["lr"] == 0.1
    assert config["prompt"].endswith("[cut by pilothouse: 10000000 characters]")
    assert "config.prompt was cut from 10000000 to 4096 characters" in caplog.text


def test_a_config_with_too_many_keys_keeps_what_fits_and_names_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    config = configured({f"key{index}": "x" * 4_000 for index in range(100)} | {"last": 1})
    assert len(json.dumps(config)) < CONFIG_BYTES
    assert config["last"] == 1
    assert "keys are left out" in config[TRUNCATED_KEY]
    assert "keys are left out" in caplog.text


def test_a_sequence_without_end_is_read_to_a_point(caplog: pytest.LogCaptureFixture) -> None:
    assert len(configured({"seeds": range(10**15)})["seeds"]) == 1_000
    assert "of config.seeds only the first 1000 items are kept" in caplog.text


def test_a_config_that_contains_itself_ends() -> None:
    config: dict[str, object] = {"lr": 0.1}
    config |= {f"self{index}": config for index in range(20)}
    assert configured(config)["lr"] == 0.1


def test_tags_and_links_are_text() -> None:
    said: Description = {"tags": {"team": 7}, "links": {"wandb": "https://x"}, "cost_per_hour": 32}
    fields = described(said)
    assert fields["tags"] == {"team": "7"}
    assert fields["links"] == {"wandb": "https://x"}
    assert fields["cost_per_hour"] == 32.0


def test_labels_beyond_what_a_run_may_have_are_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    tags: Mapping[str, object] = {"": "nameless", "bad": Silent()} | {
        f"tag{index}": "語" * 5_000 for index in range(900)
    }
    links = {f"link{index}": index for index in range(900)}
    fields = described({"tags": tags, "links": links, "model": "語" * 9_000})
    assert refusal(Told(WHO, 1, RunStarted, REQUIRED | fields)) is None
    assert (len(fields["links"]), "" in fields["tags"]) == (97, False)
    assert fields["tags"]["bad"].startswith("[unreadable")
    (record,) = caplog.records
    assert "links: 802 are left out" in record.getMessage() or "more" in record.getMessage()


def test_a_text_that_cannot_be_read_is_a_mark(caplog: pytest.LogCaptureFixture) -> None:
    fields = described({"model": Silent(), "code_version": ""})  # type: ignore[typeddict-item]
    assert fields["model"].startswith("[unreadable by pilothouse")
    assert "code_version" not in fields
    assert "model cannot be read" in caplog.text


@pytest.mark.parametrize(
    "given,message",
    [
        ({"tags": ["a"]}, r"^start_run: tags must be a mapping of names to texts, .*, got list \['a'\]$"),
        ({"tags": "abc"}, "tags must be a mapping .* got str 'abc'$"),
        ({"links": 3}, "links must be a mapping"),
        ({"tags": Silent()}, "tags must be .* got Silent$"),
        ({"cost_per_hour": "abc"}, "^start_run: cost_per_hour must be a number from 0, got str 'abc'$"),
        ({"cost_per_hour": -1}, "cost_per_hour must be a number from 0, got int -1$"),
        ({"cost_per_hour": math.nan}, "cost_per_hour must be a number from 0, got float nan$"),
        ({"cost_per_hour": math.inf}, "cost_per_hour must be"),
        ({"cost_per_hour": Silent()}, "cost_per_hour must be a number from 0, got Silent$"),
        ({"cost_per_hour": numpy.zeros(2)}, "cost_per_hour must be"),
        ({"name": 3}, "^start_run: name must be a text, got int 3$"),
        ({"name": None}, "name must be a text, got NoneType None"),
        ({"name": ""}, "^start_run: name is what people call the run by: not empty"),
        ({"name": "-x"}, "no '-' first; got '-x'$"),
        ({"run_id": 17}, "run_id must be a text, got int 17"),
        ({"settings": {"kafka": "x"}}, "settings must be a pilothouse.settings.Settings"),
        ({"sidecar": 3}, "sidecar must be the path of a file, got int 3"),
        ({"colour": "red"}, "start_run does not know colour; it takes cluster, code_version, config, "),
    ],
)
def test_an_argument_of_a_kind_that_it_cannot_be_is_refused_in_one_line(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserMistake, match=message) as refused:
        refuse_mistakes({"name": "gpt"} | given)
    assert "\n" not in str(refused.value)


def test_none_says_the_same_as_leaving_out() -> None:
    absent = dict.fromkeys(("tags", "links", "config", "cost_per_hour", "model", "run_id", "settings", "sidecar"))
    refuse_mistakes({"name": "gpt"} | absent)
    assert described(dict.fromkeys(("tags", "links", "model", "cost_per_hour"))) == {"config": {}}  # type: ignore[arg-type]
