"""The command line as a whole: what it offers, what it costs to start, how it ends."""

import subprocess
import sys

import pytest
import typer

from pilothouse.cli.main import commands

ORDERS = ("--data-dir", "--json", "--wait", "--who", "--why")
REPORTS = ("--data-dir", "--html", "--json", "--md", "--output")
OPTIONS = {
    "advice": ["--data-dir", "--json", "run"],
    "audit heads": ["--data-dir"],
    "audit log": ["--data-dir", "--json", "--limit", "-n", "run"],
    "audit verify": ["--data-dir", "--heads", "--json", "run"],
    "backtest": ["--all", "--data-dir", "--jobs", "--json", "--runs", "--since", "-j", "more", "policy"],
    "compare": ["--against", "--by", *REPORTS, "-o", "runs"],
    "events": ["--data-dir", "--json", "--kind", "--limit", "-k", "-n", "run"],
    "doctor": ["--data-dir", "--json"],
    "export": ["--data-dir", "--force", "--json", "file", "run"],
    "health": ["--data-dir", "--json", "--ready", "--slot", "role"],
    "import": ["--data-dir", "--from", "--json", "--map", "--outcome", "--run-name", "path"],
    "interventions": ["--data-dir", "--json", "run"],
    "keys ensure": ["--data-dir", "--keys"],
    "keys list": ["--data-dir", "--json", "--keys"],
    "keys new": ["--data-dir", "--keys", "--name", "role"],
    "keys retire": ["--data-dir", "--keys", "key"],
    "keys rotate": ["--data-dir", "--keys", "--name", "role"],
    "logs": ["--data-dir", "--json", "--level", "--limit", "--rank", "-l", "-n", "run"],
    "mcp": ["--data-dir"],
    "migrate": ["--accept-loss", "--data-dir"],
    "plan": ["--data-dir", "--json", "--out", "-o", "run"],
    "rate": ["--data-dir", "--json", "--note", "--wait", "--who", "rating", "run", "sample"],
    "replay": ["--data-dir", "--json", "run"],
    "policy activate": ["--all", "--data-dir", "--json", "--run", "--skip-tests", "source"],
    "policy check": ["--json", "sources"],
    "policy diff": ["--data-dir", "--json", "--run", "after", "before"],
    "policy explain": ["--data-dir", "--json", "--run", "source"],
    "policy list": ["--data-dir", "--json", "--runs", "sources"],
    "policy schema": [],
    "policy test": ["--json", "--verbose", "-v", "sources"],
    "report": ["--data-dir", "--fleet", *REPORTS[1:], "--since", "-o", "run"],
    "report-fact": ["--at", "--data-dir", "--json", "--note", "--once", "--subject", "--who", "name", "numbers", "run"],
    "run": ["--name", "--norms", "--run-id", "--steer", "command"],
    "runs": ["--data-dir", "--json", "--limit", "--sort", "-n"],
    "show": ["--data-dir", "--json", "run"],
    "similar": ["--data-dir", "--html", "--json", "--limit", *REPORTS[3:], "-n", "-o", "run"],
    "deadletter list": ["--data-dir", "--json", "--limit", "-n"],
    "deadletter replay": ["--all", "--data-dir", "--json", "--limit", "--reason", "-n", "which"],
    "deadletter show": ["--data-dir", "--limit", "--raw", "-n", "which"],
    "spool drop": ["--data-dir", "--json", "--yes", "which"],
    "spool list": ["--data-dir", "--json"],
    "spool push": ["--data-dir", "--json", "which"],
    "status": ["--data-dir", "--json"],
    "sql": [
        "--data-dir",
        "--format",
        "--json",
        "--max-memory-mb",
        "--max-seconds",
        "--output",
        "--write",
        "-f",
        "-o",
        "query",
    ],
    "approve": [*ORDERS, "intervention", "run"],
    "decline": [*ORDERS, "intervention", "run"],
    "intervene": [*ORDERS, "action", "run", "values"],
    "pause": ["--data-dir", "--for", *ORDERS[1:], "run"],
    "pending": ["--data-dir", "--json", "run"],
    "resume": [*ORDERS, "run"],
    "serve": ["--called", "--data-dir", "--host", "--port", "--quiet", "--tokens"],
    "silence": ["--condition", "--data-dir", "--end", "--for", "--json", "--rule", *ORDERS[2:], "run"],
    "stop": ["--checkpoint", *ORDERS, "run"],
    "storage backup": ["--data-dir", "--json", "folder"],
    "storage grants": ["--apply", "--commands", "--data-dir", "--json", "--password-file", "--user"],
    "storage restore": ["--data-dir", "--json", "folder"],
    "tail": ["--data-dir", "--json", "--kind", "--lines", "-k", "-n", "run"],
    "topics acl": ["--apply", "--commands", "--data-dir", "--json", "--user"],
    "topics create": ["--data-dir", "--json"],
    "topics list": ["--data-dir", "--json"],
    "up": [
        "--advisor",
        "--data-dir",
        "--http-port",
        "--kafka",
        "--kafka-home",
        "--kafka-port",
        "--page",
        "--page-port",
        "--policy",
    ],
    "worker": ["--slot", "role"],
}
"""What people's scripts stand on. Adding is fine; whoever takes one away must say so in the changelog."""

HEAVY = ("aiohttp", "chdb", "clickhouse_connect", "faust", "kafka", "msgspec", "pydantic", "torch")


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False, timeout=60)


def typed(*words: str, before: str = "pass") -> "subprocess.CompletedProcess[str]":
    """The command line in a process that is prepared by some code."""
    return python(
        f"import sys; {before}; sys.argv = ['pilothouse', *{words!r}]; from pilothouse.cli.main import app; app()"
    )


def test_the_commands_and_their_options_are_these() -> None:
    root = typer.main.get_command(commands)
    found: dict[str, list[str]] = {}
    for name, command in getattr(root, "commands", {}).items():
        for below, leaf in getattr(command, "commands", {"": command}).items():
            found[f"{name} {below}".strip()] = sorted(
                word for parameter in leaf.params if parameter.name != "help" for word in parameter.opts
            )
    found.pop("demo", None)  # its options are its own
    assert found == OPTIONS


def test_help_costs_no_heavy_import() -> None:
    answer = python(f"import sys, pilothouse.cli.main; print(sorted(set(sys.modules) & set({HEAVY!r})))")
    assert answer.stdout == "[]\n", answer.stderr


def test_the_version_is_said() -> None:
    assert typed("--version").stdout.startswith("pilothouse ")


@pytest.mark.parametrize(
    "command, module, extra",
    [
        (("runs",), "clickhouse_connect", "server"),
        (("worker", "governor"), "faust", "server"),
        (("worker", "endpoint"), "chdb", "local"),
        (("up",), "chdb", "local"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(command: tuple[str, ...], module: str, extra: str) -> None:
    answer = typed(*command, before=f"sys.modules[{module!r}] = None")
    assert answer.returncode == 2
    [line] = answer.stderr.splitlines()
    assert f"needs {module}" in line
    assert f"pip install 'pilothouse[{extra}]'" in line


def test_a_worker_without_a_broker_says_what_to_do_and_ends_within_its_time() -> None:
    patience = "import pilothouse.stream_processors.process as process; process.ARRIVAL_SECONDS = 2.5"
    nowhere = f"import os; os.environ['PILOTHOUSE_KAFKA'] = '127.0.0.1:9'; {patience}"
    answer = typed("worker", "governor", before=nowhere)
    assert answer.returncode == 2
    unsigned, waiting, ended = answer.stderr.splitlines()
    assert "WARNING governor: NOTHING IS SIGNED" in unsigned
    for line in (waiting, ended):
        assert "no broker answers at 127.0.0.1:9: start one with `pilothouse up`, or name one" in line
    assert ended.endswith("(waited 2 s)")


def test_a_bug_is_one_line_too_and_a_traceback_on_demand() -> None:
    broken = "import pilothouse.settings; pilothouse.settings.load_settings = None"
    answer = typed("runs", before=broken)
    assert answer.returncode == 70
    [line] = answer.stderr.splitlines()
    assert "PILOTHOUSE_DEBUG=1" in line
    debugged = typed("runs", before=f"import os; os.environ['PILOTHOUSE_DEBUG'] = '1'; {broken}")
    assert "Traceback" in debugged.stderr


def test_a_full_disk_under_the_output_is_said_in_one_line() -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "pilothouse.cli.main", "--help"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert (ended.returncode, ended.stderr) == (2, "pilothouse: the disk is full: [Errno 28] No space left on device\n")
