"""Imports and exports on the real archive: once is enough, cut off goes on, and what comes back is what went out."""

import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from clickhouse_connect.driver.client import Client
from pyarrow import parquet

from pilothouse.cli.importing import Importer, Wishes
from pilothouse.events.codec import encode
from pilothouse.events.commands import RunAnnotated, Tick
from pilothouse.events.envelope import LogPlace
from pilothouse.events.errors import FileRefused, UserMistake
from pilothouse.events.topics import CONTROL, TELEMETRY
from pilothouse.events.union import Record
from pilothouse.settings import Settings
from pilothouse.storage import portable_reading, queries
from pilothouse.storage.archive import Archive, Archived
from pilothouse.storage.connect import connect
from pilothouse.storage.history import open_runs, read_decisions, read_log
from pilothouse.storage.imports.finding import Exported, find
from pilothouse.storage.imports.keeping import Keeper
from pilothouse.storage.migrate import migrate
from pilothouse.storage.portable_reading import Portable
from pilothouse.storage.portable_writing import content_of, export_run
from pilothouse.stream_processors.fold import fold
from pilothouse.stream_processors.replay import replay
from pilothouse.stream_processors.run_state import new_state
from pilothouse.tests.archive_events import Writer, logged, story
from pilothouse.tests.endpoint_fixture import EndpointProcess
from pilothouse.tests.scripted_log import POLICIES, ScriptedLog, events_of, rows
from pilothouse.tests.stack_fixture import CLI, environ

LOGS = Path(__file__).parents[1] / "logs_of_others"
LONG = ScriptedLog(rows([float(second) for second in range(120)]), name="long")


@pytest.fixture(scope="module")
def client(endpoint: EndpointProcess) -> Iterator[Client]:
    connected = connect(Settings(clickhouse_url=endpoint.clickhouse_url))
    migrate(connected)
    yield connected
    connected.close()


@pytest.fixture
def other(endpoint: EndpointProcess, request: pytest.FixtureRequest) -> Iterator[Client]:
    """Another archive, empty, for each test its own."""
    server, _ = endpoint.clickhouse_url.rsplit("/", 1)
    connected = connect(
        Settings(clickhouse_url=f"{server}/other_{sha256(request.node.name.encode()).hexdigest()[:16]}")
    )
    migrate(connected)
    yield connected
    connected.close()


def importer(client: Client, **wishes: Any) -> Importer:
    return Importer(client, POLICIES, Wishes(**wishes))


def history(client: Client, run_id: str) -> list[tuple[LogPlace, bytes]]:
    log = [(record.place, encode(record.event).body) for record in read_log(client, run_id)]
    return log + [(decision.basis, encode(decision).body) for decision in read_decisions(client, run_id)]


def counted(client: Client) -> list[tuple[object, ...]]:
    tables = ("event_log", "step_log", "imported_tick_log", "tick_log", "import_log")
    sql = " UNION ALL ".join(f"SELECT '{table}' AS t, count() FROM {table} FINAL" for table in tables)
    return sorted(tuple(row) for row in client.query(sql).result_rows)


# ------------------------------------------------------------------------------------------------------------ imports


def test_every_tracker_s_run_gets_phases_and_stands_in_the_list_of_runs(other: Client) -> None:
    for source in find(LOGS).sources:
        assert importer(other).bring(source).result == "imported"
    listed = {row["run_id"].split("-")[0]: row for row in queries.list_runs(other)}
    assert set(listed) == {"huggingface", "lightning.version_0", "tensorboard", "well"}
    assert {row["phase"] for row in listed.values()} == {"Ended"}
    assert {row["outcome"] for row in listed.values()} == {"completed"}
    assert open_runs(other) == []
    shown = queries.show_run(other, "tensorboard")
    assert shown["tags"] == '{"imported_from":"tensorboard"}'
    assert [attempt["reason"] for attempt in shown["attempt_list"]] == ["start", "restart"]


def test_a_second_time_nothing_changes(other: Client) -> None:
    assert importer(other).bring(LONG).result == "imported"
    before, told = counted(other), history(other, "long")
    assert importer(other).bring(LONG).result == "present"
    other.command("TRUNCATE TABLE import_log")
    with pytest.raises(FileRefused, match="the archive has a run long already, which is not an import"):
        importer(other).bring(LONG)
    assert history(other, "long") == told
    assert [row for row in counted(other) if row[0] != "import_log"] == [
        row for row in before if row[0] != "import_log"
    ]


def test_what_was_decided_is_what_a_replay_decides(client: Client) -> None:
    importer(client).bring(LONG)
    decided = [encode(decision).body for decision in read_decisions(client, "long")]
    assert [encode(decision).body for decision in replay("long", read_log(client, "long"))] == decided


class CutOffError(Exception):
    """What stands for a SIGKILL between two inserts."""


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_import_cut_off_anywhere_goes_on_and_ends_as_if_it_had_not_been(
    other: Client, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    importer(other).bring(ScriptedLog(LONG.listed, name="whole"))
    monkeypatch.setattr("pilothouse.storage.imports.keeping.BATCH_ROWS", 80)
    inserts: list[int] = []
    insert = Archive.insert

    def dying(archive: Archive, records: Any) -> Any:
        inserts.append(len(records))
        done = insert(archive, records)
        if len(inserts) == after:
            raise CutOffError  # the ticks of this batch are not there yet
        return done

    monkeypatch.setattr(Archive, "insert", dying)
    with pytest.raises(CutOffError):
        importer(other).bring(LONG)
    assert "long" not in open_runs(other)
    monkeypatch.setattr(Archive, "insert", insert)
    resumed = importer(other).bring(LONG)
    assert resumed.result == "resumed"
    assert Keeper(other).known("long").finished  # type: ignore[union-attr]  # it was brought
    assert comparable(other, "long") == comparable(other, "whole")


def comparable(client: Client, run_id: str) -> list[tuple[str, int]]:
    log = [(record.event.kind, record.place.offset) for record in read_log(client, run_id)]
    return log + [(decision.kind, decision.step) for decision in read_decisions(client, run_id)]


def test_a_killed_import_goes_on_where_it_was(endpoint: EndpointProcess, other: Client, tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(8)]
    lines = [f"step,loss,{','.join(names)}", *(f"{step},{2 + 1 / (step + 1)}{',1.5' * 8}" for step in range(1_500))]
    (tmp_path / "big.csv").write_text("\n".join(lines) + "\n")
    command = [*CLI, "import", str(tmp_path / "big.csv"), "--json"]
    env = environ(tmp_path / "data") | {
        "PILOTHOUSE_CLICKHOUSE_URL": f"{endpoint.clickhouse_url.rsplit('/', 1)[0]}/{other.database}"
    }
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    keeper = Keeper(other)
    until(lambda: keeper.reached("big") > 0 or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = keeper.reached("big")
    known = keeper.known("big")
    assert known is not None
    assert not known.finished
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)
    [told] = map(json.loads, done.stdout.splitlines())
    assert (told["result"], told["rows"]) == ("resumed", 1_500)
    [row] = other.query(
        "SELECT count(), uniqExact(step) FROM steps WHERE run_id = 'big' AND metric = 'loss'"
    ).result_rows
    assert tuple(row) == (1_500, 1_500)
    assert 0 < reached < keeper.reached("big")
    decided = [decision.event_id for decision in read_decisions(other, "big")]
    assert [decision.event_id for decision in replay("big", read_log(other, "big"))] == decided


def until(holds: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_another_log_of_the_same_name_is_refused_and_nothing_of_it_is_taken(client: Client) -> None:
    importer(client).bring(LONG)
    before = history(client, "long")
    grown = ScriptedLog(rows([float(second) for second in range(121)]), name="long")
    with pytest.raises(FileRefused, match=r"run long was imported from scripted.csv, which said something else"):
        importer(client).bring(grown)
    assert history(client, "long") == before
    assert importer(client, run_name="long-2").bring(grown).run_id == "long-2"


def test_a_run_that_a_stack_knows_is_left_alone(client: Client) -> None:
    Archive(client).insert(logged(story("live")))
    before = history(client, "live")
    with pytest.raises(FileRefused, match="has a run live already, which is not an import"):
        importer(client, run_name="live").bring(LONG)
    assert history(client, "live") == before


def test_imports_are_no_part_of_the_stack_s_own_log(other: Client) -> None:
    importer(other).bring(LONG)
    assert {row["log_partition"] for row in queries.archive_progress(other)} == {1023}
    assert {row["log_epoch"] for row in queries.archive_progress(other)} == {0}
    assert other.query("SELECT count() FROM tick_log").result_rows == [(0,)]


def test_what_is_said_of_an_imported_run_later_stands_behind_its_history(client: Client) -> None:
    importer(client, run_name="noted").bring(LONG)
    before = read_log(client, "noted")
    note = RunAnnotated(run_id="noted", writer_id="me", seq=1, at=1, who="me", text="a good one")
    elsewhere = Tick(at=1, partition=3, writer_id="ticker", seq=1)
    places = [Archived(TELEMETRY.name, LogPlace(0, 3, 2), elsewhere), Archived(TELEMETRY.name, LogPlace(0, 3, 5), note)]
    Archive(client).insert(places)
    assert read_log(client, "noted") == [*before, (LogPlace(0, 3, 5), note)]


def test_secrets_of_a_configuration_do_not_come_along(client: Client) -> None:
    importer(client, run_name="secret").bring(find(LOGS / "wandb").sources[0])
    [attempt] = queries.show_run(client, "secret")["attempt_list"]
    assert "0123456789abcdef" not in attempt["config"]
    assert '"layers":2' in attempt["config"]


# ------------------------------------------------------------------------------------------------------------ exports


def exported(client: Client, run_id: str, path: Path) -> Path:
    export_run(client, run_id, path, replace=True)
    return path


@pytest.mark.parametrize("run_id", ["imported", "live"])
def test_an_export_comes_back_as_the_same_history_and_goes_out_as_the_same_bytes(
    client: Client, other: Client, tmp_path: Path, run_id: str
) -> None:
    if run_id == "live":
        records = [*logged(story("live"), partition=2, first=40), *logged([Writer("else").steps([1], loss=[1.0])])]
        Archive(client).insert(records)
    else:
        importer(client, run_name="imported").bring(LONG)
    first = exported(client, run_id, tmp_path / "first")
    assert importer(other).bring(Exported(first)).result == "imported"
    assert importer(other).bring(Exported(first)).result == "present"
    second = exported(other, run_id, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    events = [encode(record.event).body for record in read_log(client, run_id)]
    assert [encode(record.event).body for record in read_log(other, run_id)] == events
    without_basis = {"basis": LogPlace(0, 0, 0)}
    told, decided = (
        [encode(decision.model_copy(update=without_basis)).body for decision in read_decisions(archive, run_id)]
        for archive in (client, other)
    )
    assert told == decided


def test_a_replay_of_what_came_back_decides_the_same(client: Client, other: Client, tmp_path: Path) -> None:
    importer(client).bring(LONG)
    importer(other).bring(Exported(exported(client, "long", tmp_path / "long")))
    decided = [encode(decision).body for decision in read_decisions(other, "long")]
    assert [encode(decision).body for decision in replay("long", read_log(other, "long"))] == decided


def test_a_run_of_a_stack_s_log_comes_back_with_places_of_its_own_that_a_replay_agrees_with(
    client: Client, other: Client, tmp_path: Path
) -> None:
    state, records = new_state("judged"), list[Archived]()
    for index, event in enumerate(events_of(ScriptedLog(LONG.listed, name="judged"))):
        folded = fold(state, Record(LogPlace(3, 2, 5 + 7 * index), event))
        state = folded.state
        records.append(Archived(TELEMETRY.name, LogPlace(3, 2, 5 + 7 * index), event))
        first = len(records)
        records += [
            Archived(CONTROL.name, LogPlace(3, 2, first + number), decision)
            for number, decision in enumerate(folded.decisions)
        ]
    Archive(client).insert(records)
    importer(other).bring(Exported(exported(client, "judged", tmp_path / "judged")))
    decided = [encode(decision).body for decision in read_decisions(other, "judged")]
    assert len(decided) > 50
    assert [encode(decision).body for decision in replay("judged", read_log(other, "judged"))] == decided


def test_an_export_of_a_run_that_is_there_is_there_already_and_another_history_is_refused(
    client: Client, other: Client, tmp_path: Path
) -> None:
    importer(client).bring(LONG)
    file = exported(client, "long", tmp_path / "long")
    assert importer(client).bring(Exported(file)).result == "present"
    Archive(other).insert(logged([Writer("long").steps([1], loss=[1.0])]))
    before = counted(other)
    with pytest.raises(FileRefused, match="the archive has a run long with another history"):
        importer(other).bring(Exported(file))
    assert counted(other) == before


def test_a_file_that_is_there_is_not_written_over(client: Client, tmp_path: Path) -> None:
    importer(client).bring(LONG)
    path = tmp_path / "kept"
    path.write_text("mine")
    with pytest.raises(UserMistake, match="is there already"):
        export_run(client, "long", path)
    assert path.read_text() == "mine"
    with pytest.raises(UserMistake, match="cannot be written"):
        export_run(client, "long", tmp_path / "no" / "such" / "folder")
    assert os.listdir(tmp_path) == ["kept"]


@pytest.fixture(scope="module")
def good(client: Client, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    importer(client).bring(LONG)
    return exported(client, "long", tmp_path_factory.mktemp("good") / "long").read_bytes()


def rezipped(whole: bytes, change: Callable[[dict[str, bytes]], None], compress: int | None = None) -> bytes:
    """The same file with other members."""
    with zipfile.ZipFile(BytesIO(whole)) as file:
        members = {name: file.read(name) for name in file.namelist()}
        kinds = {told.filename: told.compress_type for told in file.infolist()}
    change(members)
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in members.items():
            file.writestr(name, content, compress if compress is not None else kinds.get(name, zipfile.ZIP_DEFLATED))
    return out.getvalue()


def edited(name: str, old: str, new: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        assert old.encode() in members[name]
        members[name] = members[name].replace(old.encode(), new.encode(), 1)

    return change


def less(name: str) -> Callable[[dict[str, bytes]], None]:
    def change(members: dict[str, bytes]) -> None:
        del members[name]

    return change


def replaced(name: str, content: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: content})


def without_the_last_event(members: dict[str, bytes]) -> None:
    members["events.jsonl"] = b"\n".join(members["events.jsonl"].splitlines()[:-1]) + b"\n"


def with_an_event_twice(members: dict[str, bytes]) -> None:
    lines = members["events.jsonl"].splitlines()
    members["events.jsonl"] = b"\n".join([*lines, lines[-1]]) + b"\n"


def with_steps_for_ticks(members: dict[str, bytes]) -> None:
    members["ticks.parquet"] = members["steps.parquet"]


def spoiled(change: Callable[[dict[str, bytes]], None], compress: int | None = None) -> Callable[[bytes], bytes]:
    return lambda good: rezipped(good, change, compress)


MANIFEST, EVENTS = "manifest.json", "events.jsonl"
MALICIOUS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "zip slip": (spoiled(replaced("../../../etc/cron.d/x", b"x")), "which is no part of an export"),
    "an absolute path": (spoiled(replaced("/etc/passwd", b"x")), "which is no part of an export"),
    "one member less": (spoiled(less("ticks.parquet")), "each once"),
    "a bomb of lines": (spoiled(replaced(EVENTS, b"\n" * 50_000_000)), "more than is believed"),
    "a packed table": (spoiled(lambda _: None, zipfile.ZIP_DEFLATED), "packed in another way"),
    "cut off": (lambda good: good[: len(good) // 2], "is no export of a run, or was cut off"),
    "no zip": (lambda _: b"PK\x03\x04" + b"junk" * 99, "is no export of a run, or was cut off"),
    "a flipped byte": (lambda good: good[:900] + bytes([good[900] ^ 1]) + good[901:], "events.jsonl"),
    "a part said twice": (
        spoiled(edited(EVENTS, '{"part":"log",', '{"part":"log","part":"control",')),
        "line 1 stands nowhere",
    ),
    "a newer format": (
        spoiled(edited(MANIFEST, '"version": 1', '"version": 2')),
        "has format 2, this version reads up",
    ),
    "a newer event": (spoiled(edited(MANIFEST, '"tick": 1', '"tick": 9')), "holds 'tick' of version 9"),
    "another format": (spoiled(edited(MANIFEST, "pilothouse-run", "x")), "is not that of an export"),
    "no manifest": (spoiled(replaced(MANIFEST, b"[1]")), "is not that of an export"),
    "a huge manifest": (spoiled(replaced(MANIFEST, b" " * 2_000_000)), "believed"),
    "an unknown field": (spoiled(edited(MANIFEST, '"ticks"', '"tocks"')), "manifest.json: "),
    "more steps said": (spoiled(edited(MANIFEST, '"step_rows": 120', '"step_rows": 121')), "has 120 rows, where"),
    "a changed decision": (spoiled(edited(EVENTS, '"reason":"AllFinite"', '"reason":"Fine"')), "its records are not"),
    "an event that is none": (spoiled(edited(EVENTS, '"world_size":1', '"world_size":0')), "run_started.world_size"),
    "of another run": (spoiled(edited(EVENTS, '"run_id":"long"', '"run_id":"live"')), "is of another run"),
    "a missing event": (spoiled(without_the_last_event), "does not hold as many records"),
    "an event twice": (spoiled(with_an_event_twice), "is missing or there twice"),
    "a strange line": (spoiled(edited(EVENTS, '{"part":"log"', '{"Part":"log"')), "line 1 stands nowhere"),
    "a wrong table": (spoiled(with_steps_for_ticks), "ticks.parquet has"),
    "no table": (spoiled(replaced("steps.parquet", b"PAR1" * 9)), "steps.parquet is damaged"),
}


@pytest.mark.parametrize("case", MALICIOUS)
def test_a_file_that_is_not_what_it_claims_is_refused_and_nothing_is_written(
    good: bytes, client: Client, tmp_path: Path, case: str
) -> None:
    spoil, why = MALICIOUS[case]
    path = tmp_path / "spoiled.pilothouse"
    path.write_bytes(spoil(good))
    before, files = counted(client), sorted(os.listdir(tmp_path))
    with pytest.raises(FileRefused) as refused:
        importer(client).bring(Exported(path))
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)
    assert counted(client) == before
    assert sorted(os.listdir(tmp_path)) == files


def test_a_table_of_more_rows_than_its_bytes_can_hold_is_refused(
    good: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(portable_reading, "SMALL", 10)
    monkeypatch.setattr(portable_reading, "ROWS_A_BYTE", 0)
    path = tmp_path / "bomb"
    path.write_bytes(good)
    with pytest.raises(FileRefused, match="more than is believed"):
        Portable(path).check()


def test_a_group_of_more_values_than_is_believed_is_refused_before_it_is_read(good: bytes, tmp_path: Path) -> None:
    """Ten million zeros in one list are some kilobytes of Parquet."""

    def bomb(members: dict[str, bytes]) -> None:
        table, out = parquet.read_table(BytesIO(members["steps.parquet"])), BytesIO()
        field, zeros = table.schema.field("values"), pyarrow.repeat(0.0, 10_000_000)
        lists = pyarrow.ListArray.from_arrays([0] + [len(zeros)] * len(table), zeros, type=field.type)
        parquet.write_table(table.set_column(len(table.schema) - 1, field, lists), out, store_schema=False)
        members["steps.parquet"] = out.getvalue()

    path = tmp_path / "bomb"
    path.write_bytes(rezipped(good, bomb, None))
    assert path.stat().st_size < 200_000
    with pytest.raises(FileRefused, match="would take more memory than is believed"):
        Portable(path).check()


def test_every_byte_of_an_export_counts(good: bytes, tmp_path: Path) -> None:
    """Wherever one is another, the file is refused, or what it holds is the same."""
    path = tmp_path / "flipped"
    shown = 0
    for at in range(0, len(good), max(1, len(good) // 60)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        try:
            Portable(path).check()
        except FileRefused:
            shown += 1
    assert shown > 40


def test_the_digest_is_that_of_the_history(client: Client, good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "good"
    path.write_bytes(good)
    shutil.copyfile(path, tmp_path / "copy")
    assert Portable(tmp_path / "copy").manifest.content == content_of(client, "long")
