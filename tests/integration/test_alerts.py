"""Alerts as they go out: the rules judged by Prometheus' own tool, the routes by a real Alertmanager and receivers.

Debian: `apt-get install prometheus prometheus-alertmanager`.
"""

import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiosmtpd.controller import Controller

from pilothouse.cli.brokers import free_port

COMPOSE = Path(__file__).parents[2] / "compose"
PROMTOOL = shutil.which("promtool")
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
INSTALL = "needs {}: apt-get install prometheus prometheus-alertmanager"
SECONDS = 120.0
PAGER, NEXT_IN_LINE = "pagerduty_routing_key", "pagerduty_escalation_key"
ALWAYS = {"weekdays": ["sunday:saturday"]}


@pytest.mark.skipif(PROMTOOL is None, reason=INSTALL.format("promtool"))
@pytest.mark.parametrize("file", ["rules_test.yml", "spending_test.yml", "hosts_test.yml"])
def test_the_rules_fire_when_they_should_and_only_then(file: str) -> None:
    answer = subprocess.run(
        [str(PROMTOOL), "test", "rules", file],
        cwd=COMPOSE / "prometheus",
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


class Heard:
    """What receivers were told: (receiver, what), in order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def of(self, receiver: str) -> list[dict[str, Any]]:
        return [what for who, what in self.told if who == receiver]

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:  # noqa: N802  # the library's name
        self.told.append(("email", {"text": envelope.content.decode(errors="replace"), "to": envelope.rcpt_tos}))
        return "250 OK"


@contextmanager
def receivers(heard: Heard) -> Iterator[tuple[str, str]]:
    """The address of one HTTP server, and that of one for mail."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            heard.told.append((self.path.strip("/").partition("/")[0], json.loads(body)))
            answer = b'{"status": "success"}'
            self.send_response(202 if "enqueue" in self.path else 200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    mail = Controller(heard, hostname="127.0.0.1", port=free_port())
    mail.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", f"127.0.0.1:{mail.port}"
    finally:
        mail.stop()
        server.shutdown()
        thread.join()
        server.server_close()


def pointed_at(web: str, mail: str) -> dict[str, Any]:
    """The shipped configuration with nothing but its addresses, secrets and waits replaced; pages repeat at once."""
    config: dict[str, Any] = yaml.safe_load((COMPOSE / "alertmanager" / "alertmanager.yml").read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "200ms", "group_interval": "500ms", "repeat_interval": "500ms"}
    for receiver in config["receivers"]:
        for hook in receiver.get("webhook_configs", ()):
            hook["url"] = f"{web}/{hook.pop('url_file').rpartition('/')[2]}"
        for pager in receiver.get("pagerduty_configs", ()):
            secret = pager.pop("routing_key_file").rpartition("/")[2]
            pager |= {"routing_key": "0" * 32, "url": f"{web}/{secret}/v2/enqueue"}
        for chat in receiver.get("slack_configs", ()):
            del chat["api_url_file"]
            chat["api_url"] = f"{web}/slack"
        for letter in receiver.get("email_configs", ()):
            del letter["auth_password_file"], letter["auth_username"]
            letter |= {"smarthost": mail, "require_tls": False}
    return config


Tell = Callable[[list[dict[str, Any]]], None]


@contextmanager
def alertmanager(folder: Path, config: dict[str, Any]) -> Iterator[tuple[Tell, str]]:
    """A way to tell it alerts, as Prometheus does, and its address."""
    file, port = folder / "alertmanager.yml", free_port()
    file.write_text(yaml.safe_dump(config))
    listen = (f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", f"--storage.path={folder}/data")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(ALERTMANAGER), f"--config.file={file}", *listen], stdout=log, stderr=log)

    def tell(alerts: list[dict[str, Any]]) -> None:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/api/v2/alerts",
            json.dumps(alerts).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=10).close()

    def ready() -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    try:
        until(lambda: ready() or process.poll() is not None, (folder / "log").read_text)
        assert process.poll() is None, (folder / "log").read_text()
        yield tell, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def until(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {SECONDS:.0f} s: {what()}")
        time.sleep(0.05)


def alert(name: str, severity: str, run: str = "", **more: str) -> dict[str, Any]:
    labels = {"alertname": name, "severity": severity, **({"run": run} if run else {}), **more}
    return {"labels": labels, "annotations": {"summary": f"{name} of {run}", "description": "why"}}


@pytest.mark.skipif(ALERTMANAGER is None, reason=INSTALL.format("alertmanager"))
def test_a_page_goes_out_once_to_all_who_are_woken_tickets_by_mail_and_what_follows_from_it_to_nobody(
    tmp_path: Path,
) -> None:
    heard = Heard()
    diverged = alert("PilothouseIncident", "page", "a", condition="Stable", reason="LossPastBound")
    lasts = alert("PilothouseIncidentLasts", "page", "a", condition="Stable", escalate="yes")
    signs = [alert("PilothouseWatchdog", "none"), alert("PilothouseGovernorAtWork", "none")]
    with receivers(heard) as (web, mail), alertmanager(tmp_path, pointed_at(web, mail)) as (tell, _):
        tell([*signs, alert("PilothouseLogSilent", "page"), diverged])
        until(lambda: len(heard.of("webhook_url")) >= 2 and bool(heard.of(PAGER)), lambda: heard.told)
        silent = [alert("PilothouseRunSilent", "page", run) for run in ("b", "d", "e")]
        tell([diverged, *silent, alert("PilothouseInSteps", "ticket", "a")])
        tell([diverged, lasts, alert("PilothouseInSteps", "ticket", "c", condition="Efficient")])
        until(lambda: all(map(heard.of, ("email", "slack", NEXT_IN_LINE))), lambda: heard.told)
        until(lambda: len(heard.of("heartbeat_url")) > 1, lambda: heard.told)
        tell([diverged | {"endsAt": datetime.now(UTC).isoformat()}])
        until(lambda: any(event["event_action"] == "resolve" for event in heard.of(PAGER)), lambda: heard.told)
    pages = [event for event in heard.of(PAGER) if "PilothouseIncident of" in event["payload"]["summary"]]
    assert [event["event_action"] for event in pages][:1] == ["trigger"]
    assert len({event["dedup_key"] for event in pages}) == 1, "repeated, and one incident for whoever is woken"
    words = json.dumps(heard.told)
    assert "PilothouseRunSilent" not in words, "a log that is silent is told once, and not again for each run"
    assert "PilothouseInSteps of a" not in words, "somebody is awake for that run already"
    assert "PilothouseInSteps of c" not in json.dumps([*heard.of(PAGER), *heard.of("slack")])
    assert {tuple(letter["to"]) for letter in heard.of("email")} == {("training@example.org",)}
    assert heard.of("governor_heartbeat_url"), "the dead man's switch of the governor hears that one is at work"
    assert "PilothouseIncidentLasts" in json.dumps(heard.of(NEXT_IN_LINE))
    assert "PilothouseIncidentLasts" not in json.dumps(heard.of(PAGER))


@pytest.mark.skipif(ALERTMANAGER is None, reason=INSTALL.format("alertmanager"))
def test_tickets_rest_in_a_maintenance_window_and_what_was_silenced_wakes_nobody(tmp_path: Path) -> None:
    heard = Heard()
    with receivers(heard) as (web, mail):
        config = pointed_at(web, mail)
        config["time_intervals"][0]["time_intervals"] = [ALWAYS]
        with alertmanager(tmp_path, config) as (tell, address):
            silence(address, {"run": "known"})
            tell([alert("PilothouseRunSilent", "page", "known"), alert("PilothouseInSteps", "ticket", "resting")])
            tell([alert("PilothouseRunSilent", "page", "heard", team="other")])
            until(lambda: bool(heard.of(PAGER)), lambda: heard.told)
            tell([alert("PilothouseRunSilent", "page", "heard too", team="third")])
            until(lambda: "heard too" in json.dumps(heard.of(PAGER)), lambda: heard.told)
    words = json.dumps(heard.told)
    assert "PilothouseRunSilent of known" not in words
    assert "PilothouseInSteps of resting" not in words


def silence(address: str, labels: dict[str, str]) -> None:
    """As `amtool silence add` does."""
    matchers = [{"name": name, "value": value, "isRegex": False} for name, value in labels.items()]
    span = {"startsAt": datetime.now(UTC).isoformat(), "endsAt": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
    body = json.dumps({"matchers": matchers, **span, "createdBy": "ada", "comment": "known"}).encode()
    request = urllib.request.Request(f"{address}/api/v2/silences", body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()
