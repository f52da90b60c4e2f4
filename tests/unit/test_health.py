"""Whether a worker lives and is ready: the same answer in a command's exit status and over HTTP."""

import asyncio
import http.client
import json
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from pilothouse.cli.brokers import free_port
from pilothouse.control_room.metrics import Told, families
from pilothouse.events.errors import SettingsInvalid
from pilothouse.stream_processors.health import HealthFile, fitness
from pilothouse.stream_processors.log import Source
from pilothouse.stream_processors.probes import answer_probes, figures
from pilothouse.tests.stack_fixture import typed

WORKS = {"at": 10_000_000, "state": "running", "last_error": ""}
CASES: dict[str, tuple[dict[str, Any], int, bool, bool]] = {
    "works": (WORKS, 20_000_000, True, True),
    "has not begun": ({}, 20_000_000, False, False),
    "hangs": (WORKS, 50_000_000, False, False),
    "was stopped": (WORKS | {"state": "stopped"}, 10_000_000, False, False),
    "waits for its partitions": (WORKS | {"state": "waiting"}, 10_000_000, True, False),
    "waits for the archive": (WORKS | {"last_error": "9 records wait"}, 10_000_000, True, False),
    "says nonsense": ({"at": "x", "state": 3}, 10_000_000, False, False),
}


@pytest.mark.parametrize("case", CASES)
def test_a_worker_lives_and_is_ready_by_its_last_words(case: str) -> None:
    told, now, live, ready = CASES[case]
    found = fitness(told, now)
    assert (found.live, found.ready) == (live, ready)
    assert found.why


def test_the_command_answers_by_its_exit_status(tmp_path: Path) -> None:
    assert typed("health", "governor", data_dir=tmp_path).returncode == 1
    file = HealthFile(tmp_path, "governor", "0")
    file.write("waiting", 0, {}, {}, "")
    assert typed("health", "governor", data_dir=tmp_path).returncode == 0
    answer = typed("health", "governor", "--ready", data_dir=tmp_path)
    assert (answer.returncode, answer.stdout) == (1, "governor: it waits for its partitions\n")
    file.write("running", 3, {Source("t", 0): 3}, {}, "")
    assert typed("health", "governor", "--ready", "--json", data_dir=tmp_path).returncode == 0
    assert typed("health", "governor", "--slot", "1", data_dir=tmp_path).returncode == 1
    nobody = {"PILOTHOUSE_CLICKHOUSE_URL": "http://127.0.0.1:1/pilothouse"}
    assert typed("health", "endpoint", data_dir=tmp_path, more=nobody).returncode == 1


def test_probes_over_http_say_the_same() -> None:
    now = time.time_ns() // 1_000
    told: dict[str, Any] = {"at": now, "state": "waiting"}

    async def asked() -> list[tuple[int, str]]:
        port = free_port()
        serving = asyncio.ensure_future(answer_probes(f"127.0.0.1:{port}", lambda: told))
        answers = [await asyncio.to_thread(get, port, "/livez"), await asyncio.to_thread(get, port, "/readyz")]
        told["state"] = "running"
        answers.append(await asyncio.to_thread(get, port, "/readyz"))
        serving.cancel()
        await asyncio.wait({serving})
        return answers

    assert asyncio.run(asked()) == [
        (200, "it waits for its partitions\n"),
        (503, "it waits for its partitions\n"),
        (200, "it works\n"),
    ]


def get(port: int, path: str) -> tuple[int, str]:
    deadline = time.monotonic() + 30
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nothing listens"
            time.sleep(0.05)
        finally:
            connection.close()


def test_an_address_that_cannot_be_listened_at_is_a_setting_to_correct() -> None:
    with pytest.raises(SettingsInvalid, match=r"probe_address is 127\.0\.0\.1:99999"):
        asyncio.run(answer_probes("127.0.0.1:99999", dict))


def test_what_is_told_has_the_version_and_the_beginning(tmp_path: Path) -> None:
    file = HealthFile(tmp_path, "archiver", "2")
    file.write("running", 1, {}, {}, "")
    told = json.loads((tmp_path / "health" / "archiver-2.json").read_text())
    assert told == file.last
    assert told["version"]
    assert told["began_at"] <= told["at"]


def test_prometheus_is_told_by_the_worker_what_the_control_room_tells_of_it() -> None:
    told = {
        "role": "governor",
        "slot": "0",
        "at": 5_000_000,
        "state": "running",
        "records": 9,
        "lag": {"t/0": 2, "t/1": 3},
    }
    itself = "".join(figures(told, 8_000_000))
    known = Told([], [], [], [], [], [told | {"live": True, "ready": True}], 8_000_000)
    of_room = [family for family in families(known) if family.name.startswith("pilothouse_worker_")]
    assert list(text_string_to_metric_families(itself)) == of_room
    assert "".join(figures({}, 1)) == ""
