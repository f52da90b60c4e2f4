"""The production shape cannot be started without a container engine; what can be checked without one is."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pilothouse.settings import load_settings

FILE = Path(__file__).parents[2] / "compose" / "docker-compose.yml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]


def interpolated(value: str) -> str:
    """A value as the containers see it: what a person must supply is supplied."""
    return re.sub(r"\$\{\w+[^}]*\}", "supplied", value)


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_our_services_is_a_setting(name: str) -> None:
    written: dict[str, Any] = SERVICES[name]["environment"]
    settings = load_settings({key: interpolated(str(value)) for key, value in written.items()})
    assert settings.kafka == "kafka:9092"


def test_nothing_of_ours_starts_before_the_log_and_the_archive_are_ready() -> None:
    for name in ("governor", "archiver", "advisor"):
        needs = SERVICES[name]["depends_on"]
        assert {needs["topics"]["condition"], needs["migrate"]["condition"]} == {"service_completed_successfully"}


def test_no_image_floats() -> None:
    images = [service["image"] for service in SERVICES.values() if "build" not in service]
    assert images
    assert all(":" in image and not image.endswith(":latest") for image in images)
