"""Laws of imported logs: whatever stands in one, it is told, judged and ended without a fault, or refused."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pilothouse.events.codec import decode, encode
from pilothouse.events.commands import Tick
from pilothouse.events.decisions import PhaseChanged
from pilothouse.events.envelope import Fact
from pilothouse.events.errors import FileRefused
from pilothouse.events.telemetry import StepBatch
from pilothouse.storage.imports import wire
from pilothouse.storage.imports.finding import find
from pilothouse.storage.imports.source import MAX_MICROS, MAX_STEP, Item, Said
from pilothouse.storage.imports.survey import survey
from pilothouse.tests.fuzzing import examples
from pilothouse.tests.scripted_log import BEGAN, ScriptedLog, history_of

pytestmark = pytest.mark.fuzz

LOGS = Path(__file__).parents[1] / "logs_of_others"
WANDB = (LOGS / "wandb" / "run-well0001.wandb").read_bytes()
EVENTS = min((LOGS / "tensorboard").glob("*.0")).read_bytes()

names = st.sampled_from(["loss", "Loss/train", "grad_norm", "lr", "val_loss", "eval/acc", "x" * 300, "é"])
steps = st.integers(0, 40) | st.integers(0, MAX_STEP - 1)
times = st.integers(BEGAN, BEGAN + 10**8) | st.sampled_from([0, BEGAN + 10**11, MAX_MICROS - 1])
items = st.builds(Item, times, steps | st.none(), st.dictionaries(names, st.floats(), min_size=1, max_size=3))


@examples(30)
@given(st.lists(items, min_size=1, max_size=8), st.sampled_from(["wall", "none"]), st.sampled_from(["", "lost"]))
def test_whatever_a_log_says_is_told_judged_and_ended(listed: list[Item], clock: str, outcome: str) -> None:
    if clock == "none":
        listed = [item._replace(at=None) for item in listed]
    if all(item.step is None for item in listed):
        return
    log = ScriptedLog(listed, Said(clock=clock))  # type: ignore[arg-type]  # drawn from its values
    history = history_of(log, outcome)
    for record in history:
        encoded = encode(record.event)
        assert repr(decode(encoded.headers, encoded.body)) == repr(record.event)
    told = [record.event for record in history]
    numbers = [event.seq for event in told if isinstance(event, Fact) and event.writer_id.startswith("import-")]
    assert numbers == list(range(1, len(numbers) + 1))
    ticks = [event.at for event in told if isinstance(event, Tick)]
    assert ticks == sorted(ticks)
    assert [event.phase for event in told if isinstance(event, PhaseChanged)][-1] == "Ended"


@examples(30)
@given(st.lists(items, min_size=1, max_size=12))
def test_every_value_of_a_step_is_told_once_and_in_its_order(listed: list[Item]) -> None:
    listed = [
        Item(min(item.at or 0, BEGAN), item.step, {"loss": min(item.values.values())})
        for item in listed
        if item.step is not None
    ]
    if not listed:
        return
    told = [record.event for record in history_of(ScriptedLog(listed))]
    rows = [
        (step, repr(loss))
        for event in told
        if isinstance(event, StepBatch)
        for step, loss in zip(event.steps, event.metrics["loss"], strict=True)
    ]
    said = [(item.step, repr(item.values["loss"])) for item in listed]
    assert rows == [now for before, now in zip([None, *said], said, strict=False) if now != before]


def outcome_of(name: str, content: bytes) -> str:
    """What becomes of a file: nothing else may happen."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            found = find(path)
            for source in found.sources:
                survey(source, {})
        except FileRefused as refused:
            return f"refused: {refused}"
        return "refused" if found.refused else "read"


@examples(150)
@given(
    st.sampled_from(["log.csv", "log.jsonl", "trainer_state.json", "run-x.wandb", "mlflow.db", "log"]),
    st.binary(max_size=200),
)
@example("log.csv", b'step,loss\n0,"1\n')
@example("log.csv", b"step,loss\n0,1\x00\n")
@example("log.jsonl", b'{"step": 0, "loss": 1e999}\n{"step": NaN}\n')
@example("log.jsonl", b'{"step": 0, "time": 1e308, "loss": 1}')
@example("trainer_state.json", b'{"log_history": [{"step": 1e400, "loss": 1}]}')
@example("mlflow.db", b"SQLite format 3\x00" + bytes(90))
def test_any_bytes_are_read_or_refused(name: str, content: bytes) -> None:
    assert outcome_of(name, content).startswith(("read", "refused"))


@examples(60)
@given(st.sampled_from([("run-well0001.wandb", WANDB), ("events.out.tfevents.1.host", EVENTS)]), st.data())
def test_a_damaged_log_is_read_up_to_its_end_or_refused(log: tuple[str, bytes], data: st.DataObject) -> None:
    name, content = log
    at = data.draw(st.integers(0, len(content) - 1))
    cut = data.draw(st.booleans())
    damaged = (
        content[:at]
        if cut
        else content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
    )
    assert outcome_of(name, damaged).startswith(("read", "refused"))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_damaged(body: bytes) -> None:
    try:
        found = list(wire.fields(body))
    except wire.Damaged:
        return
    assert sum(len(value) for _, value in found if isinstance(value, bytes)) <= len(body)


@given(st.integers(0, 2**64 - 1))
def test_a_number_of_the_wire_is_the_number(value: int) -> None:
    left, body = value, bytearray(b"\x08")
    while left >= 0x80:
        body.append(left & 0x7F | 0x80)
        left >>= 7
    body.append(left)
    [(number, found)] = wire.fields(bytes(body))
    assert (number, found) == (1, value)
    assert wire.signed(found) == (value if value < 2**63 else value - 2**64)
