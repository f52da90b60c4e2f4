"""A disk of a few megabytes under an archive: a tmpfs that only its process sees. Linux, and root, or it is skipped."""

import subprocess
from pathlib import Path

import pytest

from pilothouse.tests.endpoint_fixture import EndpointProcess

SIZE = "96m"
MOUNT = 'mkdir -p "$0" && mount -t tmpfs -o size=$1 tmpfs "$0" && shift && exec "$@"'


def inside_small_disk(data_dir: Path) -> list[str]:
    """The command inside which an endpoint has this directory on a disk of its own."""
    try:
        allowed = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        allowed = False
    if not allowed:
        pytest.skip("needs a disk of its own for the archive: run it as root on Linux, with unshare and nsenter")
    return ["unshare", "--mount", "sh", "-c", MOUNT, str(data_dir), SIZE]


class SmallDisk:
    """That of a running endpoint."""

    def __init__(self, endpoint: EndpointProcess) -> None:
        self._enter = ["nsenter", "--target", str(endpoint.process.pid), "--mount", "sh", "-c"]
        self._file = str(endpoint.data_dir / "somebody-elses")

    def fill(self) -> None:
        """To the last byte."""
        subprocess.run([*self._enter, 'cat /dev/zero > "$0"', self._file], capture_output=True, check=False)

    def empty(self) -> None:
        subprocess.run([*self._enter, 'rm "$0"', self._file], capture_output=True, check=True)
