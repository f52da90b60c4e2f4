"""The policy that a run is given when it starts without one: a file's text, put into the log for replay to find.

`app` reads it once; `governor` publishes it on the telemetry topic for every run that starts ungoverned.
"""

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ..events.commands import PolicyActivated
from ..events.errors import PolicyInvalid

DEFAULT_POLICY = Path(__file__).parent.parent / "governance" / "default_policy.yaml"


class PolicyText(NamedTuple):
    """A policy as people wrote it."""

    name: str
    text: str

    def activated(self, run_id: str, at: int) -> PolicyActivated:
        """The command that governs the run from here on. The writer is derived: saying it again is a duplicate."""
        name = f"policy-{run_id}"
        writer_id = name if len(name) <= 200 else f"policy-{sha256(run_id.encode()).hexdigest()}"
        return PolicyActivated(
            at=at,
            run_id=run_id,
            writer_id=writer_id,
            seq=1,
            name=self.name,
            text=self.text,
            policy_hash=sha256(self.text.encode()).hexdigest(),
            who="settings",
        )


def read_policy(path: Path | None) -> PolicyText:
    """The text of this file, or of the packaged default.

    Raises:
        PolicyInvalid: it cannot be read, or is empty or too large for a record.
    """
    file = path or DEFAULT_POLICY
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyInvalid(f"the policy {file} cannot be read: {error}") from error
    if not 1 <= len(text) <= 65_536:
        raise PolicyInvalid(f"the policy {file} has {len(text)} characters; 1 to 65,536 are possible")
    return PolicyText(file.stem[:200], text)
