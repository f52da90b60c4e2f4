"""A log whose running mean begins anew with every epoch: where it does, and how far its first rows stand out.

What many scripts log is the mean since the epoch began (PyTorch's `AverageMeter`, Keras, GluonCV). It gets ever
quieter, and then its first rows scatter as single batches do: so a baseline taken from the end of an epoch finds them
far out, several in a row. What such a beginning looks like, an abrupt change, is what a spike looks like too; what
tells them apart is that it comes at equal distances. Learned from four of them, in rows, and forgotten when they do
not come any more. Called by `loss` for each row, on the scale on which it watches the loss.
"""

import msgspec

ABRUPT, LEAST = 8.0, 0.01
"""A change from one row to the next so many times the usual one, and a percent at least, may be a beginning."""
FOLLOWED, LEAST_USUAL = 1.05, 1e-4
"""By this factor the usual change (a median) moves with each row."""
SHORTEST, MARKS = 16, 8
"""Beginnings are no fewer rows apart; so many abrupt changes are remembered, for some are none."""
SLACK, SLACK_ROWS = 0.002, 2.0
"""Distances are equal within this share, or so many rows: an epoch is seldom a whole number of logged rows."""
EARLIER = (2, 3)
"""Epochs back another beginning must have been, beside the last."""
FORGOTTEN = 2.5
"""Epochs without an abrupt change at their beginning."""
EARLY, EARLY_ROWS = 1.0 / 3.0, 64.0
"""The share of an epoch that is its beginning, and the rows at most."""
FADES, BEYOND = 0.9, 1.5
"""How high beginnings stand out is remembered through some ten of them; a spike is higher by this factor."""
WHOLE, LONG = 2.0, 160.0
"""A climb is one of the training when it has lasted for so many epochs, or for so many rows."""


class Epochs(msgspec.Struct):
    """`row` counts rows, `change` is the usual change between two, `marks` the last rows with an abrupt one. An epoch
    of `period` rows (0: none is known) began at row `begun`; `peak` is how far its beginning stood out and `high` those
    before. The loss has been climbing for `climbing` rows.
    """

    row: int = 0
    last: float | None = None
    change: float = 0.0
    marks: list[int] = []
    period: float = 0.0
    begun: int = 0
    peak: float = 0.0
    high: float = 0.0
    climbing: int = 0

    def follow(self, value: float, *, climbs: bool) -> None:
        """One more row."""
        self.row += 1
        self.climbing = self.climbing + 1 if climbs else 0
        last, self.last = self.last, value
        if last is None:
            return
        away = abs(value - last)
        if away > self.change:
            if away >= LEAST and away >= ABRUPT * self.change > 0.0:
                self._mark()
            self.change = max(LEAST_USUAL, min(away, FOLLOWED * self.change if self.change else away))
        else:
            self.change = max(LEAST_USUAL, self.change / FOLLOWED)
        if self.period and self.row - self.begun > FORGOTTEN * self.period:
            self.period, self.marks, self.high, self.peak = 0.0, [], 0.0, 0.0

    def _mark(self) -> None:
        if self.marks and self.row - self.marks[-1] < SHORTEST:
            return
        if self.period:
            self._begin_if_due()
        else:
            self._look_for_period()
        self.marks = [*self.marks, self.row][-MARKS:]

    def _begin_if_due(self) -> None:
        epochs = max(1, round((self.row - self.begun) / self.period))
        if abs(self.row - self.begun - epochs * self.period) > epochs * _slack(self.period):
            return
        self.period += 0.2 * ((self.row - self.begun) / epochs - self.period)
        self.begun = self.row
        self.high, self.peak = max(self.peak, FADES * self.high), 0.0

    def _look_for_period(self) -> None:
        for mark in reversed(self.marks):
            period = float(self.row - mark)
            if all(self._is_marked(self.row - epochs * period, epochs * _slack(period)) for epochs in EARLIER):
                self.period, self.begun = period, self.row
                return

    def _is_marked(self, row: float, slack: float) -> bool:
        return any(abs(mark - row) <= slack for mark in self.marks)

    def at_beginning(self) -> bool:
        if not self.period:
            return False
        phase = (self.row - self.begun) % self.period
        return phase < min(EARLY * self.period, EARLY_ROWS) or phase > self.period - _slack(self.period)

    def least_rise(self, rise: float, least: float) -> float:
        """What a rise has to come to: at a beginning, which is remembered, more than those before."""
        if not self.at_beginning():
            return least
        self.peak = max(self.peak, rise)
        return max(least, BEYOND * self.high)

    def bears_out(self) -> bool:
        """Whether a climb has lasted beyond what an epoch does by itself."""
        return not self.period or self.climbing >= min(WHOLE * self.period, LONG)


def _slack(period: float) -> float:
    return max(SLACK_ROWS, SLACK * period)
