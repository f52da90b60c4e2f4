"""A chart as HTML without a script: curves in a picture that stretches, words at places in percent beside it. Pure.

So a chart is as wide as the page, its letters are as large as all others, and it prints. Called by `html`.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

from .document import Chart, Line, Mark, Shade
from .figures import number, time_of_day
from .plain import class_name, escaped
from .scales import Scale, Tick, clock_ticks, scale_of, ticks_of

WIDTH, HEIGHT = 1_000, 400
COLOURS = 6
AT_END = 0.94
"""Behind this place what is written under the axis ends there, and is not in the middle of it."""
SIGHT = 1.0
"""So many times the range of what counts, what was undone is shown above and below it."""
NAMED_MARKS = ("intervention", "incident", "attempt")


def chart(drawn: Chart) -> str:
    """The figure, or a word that there is nothing to draw."""
    xs = [x for line in drawn.lines for x, _ in line.points] + [m.x for m in drawn.marks]
    ys = list(_heights(drawn.lines))
    if not any(math.isfinite(y) for y in ys):
        return f'<p class="missing">{escaped(drawn.title)}: no finite value was logged.</p>'
    across, up = scale_of(xs, by_factor=False), scale_of(_in_sight(ys, list(_heights(drawn.lines, faint=False))))
    picture = "".join(
        [
            *(_shade(shade, across, drawn.clock) for shade in drawn.shades),
            *(_grid(tick) for tick in ticks_of(up)),
            *(_line(line, _colour(drawn.lines, line), across, up) for line in drawn.lines),
            *(_mark(mark, across) for mark in drawn.marks),
        ]
    )
    x_ticks = clock_ticks(across) if drawn.clock else ticks_of(across)
    plot = (
        f'<div class="plot" role="img" aria-label="{escaped(_said(drawn))}">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" aria-hidden="true">{picture}</svg>'
        f"{''.join(_words(ticks_of(up), x_ticks))}{_pins(drawn.marks, across)}</div>"
    )
    unit = " (UTC)" if drawn.clock else ""
    scale = ", logarithmic" if up.log else ""
    words = " ".join(filter(None, (drawn.note, _out_of_sight(ys, up))))
    note = f'<p class="note">{escaped(words)}</p>' if words else ""
    return (
        f"<figure><figcaption><b>{escaped(drawn.title)}</b>{escaped(scale)}{_legend(drawn)}</figcaption>"
        f'{plot}<div class="axis">{escaped(drawn.x_name + unit)}</div>{note}</figure>'
    )


def _heights(lines: Iterable[Line], *, faint: bool = True) -> Iterator[float]:
    """All values of the y axis, or those of what counts."""
    for line in lines:
        if faint or not line.faint:
            yield from (y for _, y in line.points if y is not None)
            yield from (bound for _, least, greatest in line.spread for bound in (least, greatest))


def _in_sight(ys: Iterable[float], counting: Sequence[float]) -> list[float]:
    """The values that the axis must hold: all that count, and of what was undone what is not far away from them."""
    known = [y for y in counting if math.isfinite(y)]
    if not known:
        return list(ys)
    room = SIGHT * ((max(known) - min(known)) or abs(max(known)))
    return [*known, *(y for y in ys if min(known) - room <= y <= max(known) + room)]


def _out_of_sight(ys: Iterable[float], up: Scale) -> str:
    beyond = [y for y in ys if math.isfinite(y) and not up.low <= y <= up.high]
    return f"What was undone reaches {number(max(beyond, key=abs))}, beyond the axis." if beyond else ""


def _colour(lines: Sequence[Line], line: Line) -> int:
    """One for each name."""
    return list(dict.fromkeys(each.name for each in lines)).index(line.name)


def _said(drawn: Chart) -> str:
    """The chart in words, for who does not see it."""
    ends = []
    for line in drawn.lines:
        known = [(x, y) for x, y in line.points if y is not None]
        if known:
            where = time_of_day(int(known[-1][0])) if drawn.clock else number(known[-1][0])
            ends.append(f"{line.name} ends at {number(known[-1][1])} ({drawn.x_name} {where})")
    return f"{drawn.title}. {'; '.join(ends[:8])}"


def _shade(shade: Shade, across: Scale, clock: bool) -> str:
    left, right = across.at(shade.left) * WIDTH, across.at(shade.right) * WIDTH
    span = [time_of_day(int(x)) if clock else number(x) for x in (shade.left, shade.right)]
    title = f"{shade.phase}: {span[0]} to {span[1]}"
    box = f'x="{left:.1f}" y="0" width="{max(1.0, right - left):.1f}" height="{HEIGHT}"'
    return f'<rect class="shade k-{class_name(shade.phase)}" {box}><title>{escaped(title)}</title></rect>'


def _grid(tick: Tick) -> str:
    y = (1 - tick.at) * HEIGHT
    return f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _line(line: Line, index: int, across: Scale, up: Scale) -> str:
    colour = f"c{index % COLOURS}{' faint' if line.faint else ''}"
    drawn = ""
    if line.spread:
        over = [_point(x, high, across, up) for x, _, high in line.spread]
        under = [_point(x, low, across, up) for x, low, _ in reversed(line.spread)]
        drawn += f'<path class="spread {colour}" d="M{"L".join([*over, *under])}Z"/>'
    for piece in _pieces(line.points):
        points = [_point(x, y, across, up) for x, y in piece]
        drawn += f'<path class="line {colour}" d="M{"L".join(points)}{"h0" if len(points) == 1 else ""}"/>'
        if line.dots:
            drawn += f'<path class="dots {colour}" d="{"".join(f"M{point}h0" for point in points)}"/>'
    return drawn


def _pieces(points: Iterable[tuple[float, float | None]]) -> Iterator[list[tuple[float, float]]]:
    """What is finite in a row: a curve ends where a value is not."""
    piece: list[tuple[float, float]] = []
    for x, y in points:
        if y is not None and math.isfinite(y):
            piece.append((x, y))
        elif piece:
            yield piece
            piece = []
    if piece:
        yield piece


def _point(x: float, y: float, across: Scale, up: Scale) -> str:
    return f"{across.at(x) * WIDTH:.1f} {(1 - up.at(y)) * HEIGHT:.1f}"


def _mark(mark: Mark, across: Scale) -> str:
    x = across.at(mark.x) * WIDTH
    top = 0 if mark.kind in NAMED_MARKS else HEIGHT - 14
    title = f"<title>{escaped(mark.label)}</title>"
    line = f'x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{HEIGHT}"'
    return f'<line class="mark m-{class_name(mark.kind)}" {line}>{title}</line>'


def _words(up: list[Tick], across: list[Tick]) -> Iterator[str]:
    for tick in up:
        yield f'<span class="y" style="top:{100 * (1 - tick.at):.2f}%">{escaped(tick.text)}</span>'
    for number_of, tick in enumerate(across):
        place = f"{' minor' if number_of % 2 else ''}{' end' if tick.at > AT_END else ''}"
        yield f'<span class="x{place}" style="left:{100 * tick.at:.2f}%">{escaped(tick.text)}</span>'


def _pins(marks: Iterable[Mark], across: Scale) -> str:
    return "".join(
        f'<span class="pin m-{class_name(mark.kind)}" style="left:{100 * across.at(mark.x):.2f}%" '
        f'title="{escaped(mark.label)}">{escaped(mark.short)}</span>'
        for mark in marks
        if mark.short
    )


def _legend(drawn: Chart) -> str:
    names = dict.fromkeys(line.name for line in drawn.lines)
    lines = [f'<span class="key c{index % COLOURS}">{escaped(name)}</span>' for index, name in enumerate(names) if name]
    if any(line.faint for line in drawn.lines):
        lines.append('<span class="key c0 faint">undone later</span>')
    kinds = dict.fromkeys(mark.kind for mark in drawn.marks)
    phases = dict.fromkeys(shade.phase for shade in drawn.shades)
    marks = [f'<span class="key m-{class_name(kind)}">{escaped(kind)}</span>' for kind in kinds]
    shades = [f'<span class="key box k-{class_name(phase)}">{escaped(phase)}</span>' for phase in phases]
    return f'<span class="legend">{"".join([*lines, *marks, *shades])}</span>'
