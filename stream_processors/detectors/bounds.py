"""How far the numbers of the detectors may go, so that none overflows and none says more than it knows."""

from ...governance.state import DIVERGED_FACTOR

MOST_SHARE = 0.9 * DIVERGED_FACTOR
"""The most of its bound that anything but a loss itself reaches: it does not call a run diverged."""
ABSTAINING = 0.99
"""The most of its bound that is reached by what does not matter yet: it is near, and no alarm."""
HUGE = 1e150
"""Losses enter within this: their squares are numbers."""
MOST_LOG = 700.0
"""The most that is given to `exp`."""
