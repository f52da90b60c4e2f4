"""A trainer obeys only the keys it was given, and says so in a receipt when it refuses."""

from pathlib import Path

import pytest
import torch

from pilothouse.events.actions import Pause, Resume, ScaleLr
from pilothouse.events.codec import Encoded, encode
from pilothouse.events.decisions import SINCE_GOOD, InterventionIssued, RunAssessed
from pilothouse.events.signing import Trust, linked, signed
from pilothouse.producers.checkpoints.retention import Judgement
from pilothouse.producers.ranks.ballots import LocalBallots
from pilothouse.producers.steering.control import MOST_DISTRUSTED, Distrusted, Inbox
from pilothouse.producers.steering.pilot import Pilot
from pilothouse.producers.steering.safe_point import Links
from pilothouse.settings import Settings
from pilothouse.tests.pilot_world import Tape, issued
from pilothouse.tests.unit.test_control import Wire
from pilothouse.tests.unit.test_signing import GOVERNOR, OPERATOR, TRUST, key_of


class Heard:
    """Rank 0's commands out of an inbox that the test fills."""

    def __init__(self, trust: Trust = TRUST) -> None:
        self.inbox = Inbox("run-1", lambda: trust)
        self.offset = 0

    def hear(self, *events: tuple[InterventionIssued | RunAssessed, Encoded]) -> None:
        for event, wire in events:
            self.offset += 1
            self.inbox.offer("log", Wire(self.offset, event.run_id.encode(), wire.headers, wire.body))

    def take(self) -> InterventionIssued | Distrusted | None:
        return self.inbox.take()

    def judged(self) -> Judgement:
        return self.inbox.judged

    def close(self, within: float = 0.0) -> None:
        pass


def genuine(command: InterventionIssued | RunAssessed) -> tuple[InterventionIssued | RunAssessed, Encoded]:
    return command, signed(linked(encode(command), bytes(32)), [GOVERNOR])


def forged(command: InterventionIssued, *keys: object) -> tuple[InterventionIssued, Encoded]:
    return command, signed(encode(command), keys)  # type: ignore[arg-type]  # keys of the tests


def trained(heard: Heard, folder: Path, steps: int = 12) -> tuple[Tape, Pilot]:
    model, tape = torch.nn.Linear(1, 1), Tape()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    links = Links(LocalBallots(), heard)
    pilot = Pilot(tape, model, optimizer, settings=Settings(data_dir=folder), links=lambda *_: links)
    for step in range(steps):
        pilot.safe_point(step)
    return tape, pilot


@pytest.mark.parametrize("key", [None, OPERATOR, key_of("governor")])
def test_a_command_that_the_governor_did_not_sign_is_refused_in_a_receipt_and_changes_nothing(
    key: object, tmp_path: Path
) -> None:
    heard = Heard()
    heard.hear(forged(issued(ScaleLr(factor=0.1)), *([key] if key else [])))
    tape, pilot = trained(heard, tmp_path)
    assert pilot.lr_multiplier == 1.0
    receipt = tape.receipt("distrusted-i-1")
    assert receipt["outcome"] == "rejected"
    assert receipt["reason"].startswith(("Unsigned", "NotItsToSay", "UnknownKey"))


def test_what_is_said_in_the_name_of_a_command_does_not_touch_the_command(tmp_path: Path) -> None:
    heard = Heard()
    command = issued(ScaleLr(factor=0.5))
    heard.hear(forged(issued(ScaleLr(factor=0.01))), genuine(command), forged(issued(ScaleLr(factor=0.01))))
    tape, pilot = trained(heard, tmp_path)
    assert pilot.lr_multiplier == 0.5
    assert [receipt["outcome"] for receipt in tape.receipts("i-1")] == ["applied"]
    assert len(tape.receipts("distrusted-i-1")) == 2


def test_a_signed_command_of_another_run_or_attempt_or_time_is_not_obeyed(tmp_path: Path) -> None:
    heard = Heard()
    other_run, expired = issued(ScaleLr(factor=0.1), run_id="run-2"), issued(ScaleLr(factor=0.1), expires_step=0)
    other_attempt = issued(ScaleLr(factor=0.1), attempt_id="attempt-0", number=2)
    _, wire = genuine(other_run)
    heard.hear((expired, wire))  # another run's bytes under this run's key
    heard.hear(genuine(other_run), genuine(other_attempt), genuine(expired))
    tape, pilot = trained(heard, tmp_path)
    assert pilot.lr_multiplier == 1.0
    assert [receipt["outcome"] for receipt in tape.receipts("i-1")] == ["expired"]


def test_during_a_pause_only_a_signed_word_ends_it(tmp_path: Path) -> None:
    heard = Heard()
    heard.hear(genuine(issued(Pause(max_seconds=60.0))), forged(issued(Resume(), number=2)))
    heard.hear(genuine(issued(Resume(), number=3)))
    tape, _ = trained(heard, tmp_path)
    assert tape.receipt("distrusted-i-2")["outcome"] == "rejected"
    assert tape.receipt("i-3")["outcome"] == "applied"


def test_what_is_good_only_the_governor_says() -> None:
    common = issued(ScaleLr(factor=0.5)).model_dump(
        include={"at", "run_id", "attempt_id", "attempt", "basis", "policy_hash"}
    )
    assessed = RunAssessed(decision_id="d", phase="Normal", step=50, features={SINCE_GOOD: 3.0}, **common)
    heard = Heard()
    heard.hear((assessed, encode(assessed)))
    assert heard.judged().good == ()
    heard.hear(genuine(assessed))
    assert heard.judged().good == (47,)


def test_without_keys_on_an_open_log_nobody_is_obeyed(tmp_path: Path) -> None:
    heard = Heard(Trust())
    heard.hear(genuine(issued(ScaleLr(factor=0.1))))
    tape, pilot = trained(heard, tmp_path)
    assert pilot.lr_multiplier == 1.0
    assert tape.receipt("distrusted-i-1")["reason"].startswith("NoKeys")


def test_a_flood_of_forgeries_is_counted_and_not_answered_one_by_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()
    heard.hear(*(forged(issued(ScaleLr(factor=0.1), number=n)) for n in range(100)))
    heard.hear(genuine(issued(ScaleLr(factor=0.5), number=200)))
    tape, pilot = trained(heard, tmp_path, steps=40)
    assert heard.inbox.refused == 100
    assert len(tape.of("intervention_receipt")) == MOST_DISTRUSTED + 1
    assert pilot.lr_multiplier == 0.5
    assert caplog.text.count("is not believed") == 1
