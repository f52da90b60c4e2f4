"""What the supervisor does at a look, with parts that only say how they stand."""

import time
from pathlib import Path
from typing import Any

from pilothouse.cli.stack_file import Stack, access_of
from pilothouse.cli.supervision import Part, Sight
from pilothouse.cli.supervisor import Supervisor


class Quiet:
    """A part that runs from its start until it is told to die."""

    shown = "a part"
    pid = 1

    def __init__(self, part: Part) -> None:
        self.part = part
        self.starts = 0
        self.alive = False

    def start(self, *_: Any) -> None:
        self.starts += 1
        self.alive = True

    def sight(self, _: float) -> Sight:
        return Sight.RUNNING if self.alive else Sight.DEAD

    def is_ready(self) -> bool:
        return self.alive

    def ask_to_stop(self) -> None:
        self.alive = False

    def stop(self, _: float) -> None:
        self.alive = False

    def how_it_ended(self) -> str:
        return "it ended"

    def bound_log(self) -> None:
        """It has none."""


def test_what_the_start_has_not_come_to_yet_is_not_started_by_a_look_and_what_died_is(tmp_path: Path) -> None:
    parts = {part: Quiet(part) for part in (Part.BROKER, Part.ARCHIVE, Part.GOVERNOR, Part.ARCHIVER, Part.CONTROL_ROOM)}
    stack = Stack(tmp_path, "127.0.0.1:1", 2, access_of(tmp_path), embedded=True, partitions=1)
    supervisor = Supervisor(stack, parts, tell=lambda _: None)
    for part in (Part.ARCHIVE, Part.BROKER, Part.GOVERNOR, Part.ARCHIVER):
        supervisor._start(part)  # as far as a start has come that waits for its workers
    parts[Part.GOVERNOR].alive = False
    supervisor.look(time.monotonic())
    assert {part: one.starts for part, one in parts.items()} == {
        Part.BROKER: 1, Part.ARCHIVE: 1, Part.GOVERNOR: 2, Part.ARCHIVER: 1, Part.CONTROL_ROOM: 0,
    }  # fmt: skip
    supervisor._start(Part.CONTROL_ROOM)
    parts[Part.CONTROL_ROOM].alive = False
    supervisor.look(time.monotonic())
    assert parts[Part.CONTROL_ROOM].starts == 2
