"""`pilothouse mcp`, spoken to by the SDK's own client over the pipes of a real process."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.server.mcpserver import MCPServer

from pilothouse.cli.mcp_command import server_of
from pilothouse.cli.mcp_suggest import suggestion_of
from pilothouse.events.actions import ScaleLr
from pilothouse.tests.archived_runs import HEAL, RunArchive, broken
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.governed_run import GovernedRun
from pilothouse.tests.stack_fixture import environ


@pytest.fixture(scope="module")
def archive(endpoint: EndpointProcess, tmp_path_factory: pytest.TempPathFactory) -> RunArchive:
    kept = RunArchive(endpoint, tmp_path_factory.mktemp("home"))
    kept.keep(GovernedRun(world=2, run_id="broken-1", loss=broken).begin(HEAL).train(100, steps_per_tick=2).end())
    kept.keep(GovernedRun(world=2, run_id="going-on").begin(HEAL).train(20, steps_per_tick=2))
    return kept


def asked(archive: RunArchive, talk: Callable[[Client], Awaitable[None]]) -> None:
    """One conversation with a server of its own."""
    told = environ(archive.folder) | {"PILOTHOUSE_CLICKHOUSE_URL": archive.endpoint.clickhouse_url}
    command = [sys.executable, "-m", "pilothouse.cli.main", "mcp"]
    held(StdioServerParameters(command=command[0], args=command[1:], env=told), talk)


def held(server: StdioServerParameters | MCPServer, talk: Callable[[Client], Awaitable[None]]) -> None:
    async def conversation() -> None:
        async with Client(server) as client:
            await talk(client)

    asyncio.run(asyncio.wait_for(conversation(), 120))


async def answer(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    said = await client.call_tool(tool, arguments)
    assert not said.is_error, said.content
    assert isinstance(said.structured_content, dict)
    json.dumps(said.structured_content, allow_nan=False)
    return said.structured_content


async def complaint(client: Client, tool: str, **arguments: Any) -> str:
    said = await client.call_tool(tool, arguments)
    assert said.is_error, said.structured_content
    return " ".join(part.text for part in said.content if part.type == "text")


def test_an_assistant_finds_what_happened_to_a_run_and_changes_nothing(archive: RunArchive) -> None:
    async def talk(client: Client) -> None:
        tools = (await client.list_tools()).tools
        looks = [tool.name for tool in tools if tool.annotations is not None and tool.annotations.read_only_hint]
        assert [tool.name for tool in tools if tool.name not in looks] == ["propose_intervention"]
        assert all(tool.description for tool in tools)

        runs = (await answer(client, "list_runs"))["runs"]
        assert {run["run_id"] for run in runs} == {"broken-1", "going-on"}
        assert [run["run_id"] for run in (await answer(client, "list_runs", going_on_only=True))["runs"]] == [
            "going-on"
        ]

        described = await answer(client, "describe_run", run="brok")
        assert described["run"]["outcome"] == "completed"
        assert {row["metric"] for row in described["metrics"]["rows"]} >= {"loss"}
        assert described["run"]["started_at"].endswith("+00:00")

        [incident] = (await answer(client, "incidents", run="broken-1"))["incidents"]
        assert incident["condition"] == "Finite"
        [done] = (await answer(client, "interventions", run="broken-1"))["interventions"]
        assert (done["rule"], done["action"], done["verification"]) == ("heal", "rollback", "recovered")
        kinds = [event["kind"] for event in (await answer(client, "timeline", run="broken-1"))["events"]]
        assert (
            kinds.index("incident_opened") < kinds.index("intervention_issued") < kinds.index("intervention_verified")
        )
        conditions = (await answer(client, "conditions", run="going-on"))["conditions"]
        assert {row["condition"]: row["status"] for row in conditions}["Finite"] == "True"

        await figures(client)
        await bad_input(client)

    asked(archive, talk)


async def figures(client: Client) -> None:
    intervals = (await answer(client, "metric", run="broken-1", metric="loss", points=10))["intervals"]
    assert sum(interval["non_finite"] for interval in intervals if "non_finite" in interval) > 0
    policy = await answer(client, "policy_in_force", run="broken-1")
    assert (policy["policy"], policy["mode"], policy["text"]) == ("careful", "enforce", HEAL)
    assert (await answer(client, "waiting")) == {"waiting": []}
    assert (await answer(client, "log_lines", run="broken-1")) == {"lines": []}

    views = (await answer(client, "views"))["views"]
    assert any(column.startswith("run_id ") for column in views["runs"]["columns"])
    counted = await answer(client, "sql", query="SELECT run_id, nan AS x FROM runs ORDER BY run_id")
    assert counted == {"columns": ["run_id", "x"], "rows": [["broken-1", "NaN"], ["going-on", "NaN"]]}


async def bad_input(client: Client) -> None:
    assert "did you mean broken-1" in await complaint(client, "describe_run", run="broken-2")
    assert "no run ''" in await complaint(client, "timeline", run="")
    assert "greater than or equal" in await complaint(client, "list_runs", limit=0)
    suggests = {"action": "scale_lr", "values": {"factor": 0.5}, "why": "it climbs"}
    assert "has ended already" in await complaint(client, "propose_intervention", run="broken-1", **suggests)
    assert "it takes: factor" in await complaint(
        client, "propose_intervention", run="going-on", action="scale_lr", why="x"
    )
    assert "no action is called 'dance'" in await complaint(
        client, "propose_intervention", run="going-on", action="dance", why="x"
    )
    for writes in ("DROP TABLE event_log", "INSERT INTO event_log (run_id) VALUES ('x')", "SELECT 1; DROP TABLE runs"):
        await complaint(client, "sql", query=writes)
    assert "nowhere" in await complaint(client, "sql", query="SELECT * FROM nowhere")
    many = await answer(client, "sql", query="SELECT number, repeat('x', 1000) FROM numbers(1000000)", limit=100)
    assert many["cut"] == "only the first 100 rows"
    assert len(many["rows"]) + many.get("left_out", 0) == 100
    assert len(json.dumps(many)) < 60_000


def test_a_suggestion_is_told_in_the_name_of_the_assistants_program_and_without_secrets() -> None:
    action = {"action": "scale_lr", "factor": 0.5}
    first, second = (suggestion_of("run-1", action, "password=hunter2 climbs", "Claude\n Code\x00") for _ in range(2))
    assert (first.advisor, first.action) == ("mcp:ClaudeCode", ScaleLr(factor=0.5))
    assert "hunter2" not in first.why
    assert first.request_id != second.request_id
    assert first.writer_id != second.writer_id
    assert suggestion_of("run-1", action, "x", "").advisor == "mcp:assistant"


def test_a_server_outlives_an_archive_that_is_away(
    archive: RunArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def talk(client: Client) -> None:
        monkeypatch.setenv("PILOTHOUSE_CLICKHOUSE_URL", "http://127.0.0.1:1/pilothouse")
        assert "pilothouse up" in await complaint(client, "list_runs")
        monkeypatch.setenv("PILOTHOUSE_CLICKHOUSE_URL", archive.endpoint.clickhouse_url)
        assert len((await answer(client, "list_runs"))["runs"]) == 2

    held(server_of(tmp_path), talk)
