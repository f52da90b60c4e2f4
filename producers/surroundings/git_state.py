"""The commit, the branch, and whether what runs differs from the commit.

Called by `surroundings.environment`. Commit and branch are read from `.git` itself. Whether files differ only git can
say (line ends, LFS filters, submodules, a stale index: comparing times and sizes would call clean checkouts dirty), so
it is asked, once, beside the training and for a bounded time. As `git describe --dirty` does, it looks at tracked
files: checkpoints and logs that nobody ignored make no checkout dirty.
"""

import os
import subprocess
from pathlib import Path
from typing import Any

from ..ranks.context import git_commit, git_folder

GIT_SECONDS = 10.0
_QUIET = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
_ASK = ("git", "-c", "core.fsmonitor=false", "status", "--porcelain", "--untracked-files=no")


def git_state(folder: Path, seconds: float = GIT_SECONDS) -> dict[str, Any]:
    """`commit`, `branch` and `dirty` of the checkout around `folder`, each where it is known; empty outside of one."""
    commit = git_commit(folder)
    if not commit:
        return {}
    state: dict[str, Any] = {"commit": commit}
    if branch := _branch(folder):
        state["branch"] = branch
    dirty = is_dirty(folder, seconds)
    return state if dirty is None else {**state, "dirty": dirty}


def is_dirty(folder: Path, seconds: float = GIT_SECONDS) -> bool | None:
    """Whether tracked files differ from the commit; None where git is not there, refuses, or takes too long."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | _QUIET
    try:
        answer = subprocess.run(
            _ASK, cwd=folder, env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return bool(answer.stdout.strip()) if answer.returncode == 0 else None


def _branch(folder: Path) -> str:
    try:
        found = git_folder(folder)
        head = (found / "HEAD").read_text().strip() if found is not None else ""
    except (OSError, ValueError):
        return ""
    return head.removeprefix("ref: refs/heads/")[:200] if head.startswith("ref: refs/heads/") else ""
