"""How many examples a fuzz test takes (a few in `make test`, many in `make fuzz`), and what strangers write."""

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

HOSTILE = (
    "\x1b[2J",
    "\n",
    "<script>alert(1)</script>",
    "'; DROP TABLE step_log; --",
    "../../../etc/passwd",
    "%s%n{}",
    "[/red]",
    "\x9b31m",
    "\u202e",
    "\udcff",
    "a" * 300,
    "-1",
    "1e999",
    "NaN",
    "0x10",
    "\\N",
    "\t",
    "`x`",
    "{run:String}",
)

strange_text = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(exclude_characters="\0"), max_size=40),
    st.integers().map(str),
)


def examples(usual: int) -> Callable[[Any], Any]:
    """So many, and in `make fuzz` as many as that is told."""
    wanted = int(os.environ.get("FUZZ_EXAMPLES", usual))
    return settings(max_examples=wanted, suppress_health_check=[HealthCheck.too_slow])
