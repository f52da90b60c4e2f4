"""The scripts of docs/howto train, with no stack to talk to: what they say of us is right, and costs no training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pilothouse.tests.pages import ROOT, Block, blocks
from pilothouse.tests.stack_fixture import environ

HOWTO = [block for page in sorted((ROOT / "docs" / "howto").glob("*.md")) for block in blocks(page)]
SCRIPTS = [block for block in HOWTO if block.language == "python"]
SHORT = {"PILOTHOUSE_CLOSE_SECONDS": "2", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def launch(script: Block) -> str:
    """The line by which its page says that it is started."""
    [line] = [
        line for block in HOWTO if block.language == "sh" for line in block.text.splitlines() if script.title in line
    ]
    return line


@pytest.mark.chaos_long  # a framework each, and two ranks: twenty seconds of CPU each
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.title)
def test_a_script_of_a_how_to_page_trains_as_its_page_says(script: Block, tmp_path: Path) -> None:
    (tmp_path / script.title).write_text(script.text)
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    env = environ(tmp_path / "data") | SHORT | {"PATH": path, "PILOTHOUSE_KAFKA": "127.0.0.1:9"}
    done = subprocess.run(
        ["bash", "-c", launch(script)], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=390
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "data" / "spool") in done.stderr, "all of it waits on disk for a stack, and that is said"
