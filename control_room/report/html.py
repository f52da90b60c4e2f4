"""A report as one HTML page that needs nothing else: no script, no font, no address. Pure, but for its own style sheet.

Its content policy forbids to load or to run anything, so that what strangers named a run cannot do it either. Called
by the command line and the control room in a browser.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import assert_never

from .chart_html import chart
from .document import Bars, Block, Cell, Chart, Document, Facts, Items, Link, Section, Table, Verbatim, Words
from .figures import moment
from .plain import class_name, escaped, escaped_lines

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
DEEPEST = 6


def written(document: Document) -> str:
    """The whole page."""
    contents = "".join(
        f'<li><a href="#{_anchor(number)}">{escaped(section.title)}</a></li>'
        for number, section in enumerate(document.sections)
    )
    body = "".join(
        f'<section id="{_anchor(number)}">{_section(section, 2)}</section>'
        for number, section in enumerate(document.sections)
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">'
        f"<title>{escaped(document.title)}</title><style>{_style()}</style></head><body>"
        f'<header><h1>{escaped(document.title)}</h1><p class="lead">{escaped(document.lead)}</p>'
        f"{_facts(document.facts)}</header><nav><ul>{contents}</ul></nav><main>{body}</main>"
        f"<footer>Made by pilothouse at {moment(document.made_at)} UTC. All times are UTC.</footer></body></html>\n"
    )


def fragment(document: Document) -> str:
    """The same without a page around it, its style with it: for a page that keeps it apart from its own."""
    body = "".join(f"<section>{_section(section, 2)}</section>" for section in document.sections)
    return (
        f"<style>{_style()}</style><h1>{escaped(document.title)}</h1>"
        f'<p class="lead">{escaped(document.lead)}</p>{_facts(document.facts)}{body}'
    )


@cache
def _style() -> str:
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8")


def _anchor(number: int) -> str:
    return f"part-{number + 1}"


def _section(section: Section, level: int) -> str:
    heading = f"h{min(level, DEEPEST)}"
    blocks = "".join(_block(block, level) for block in section.blocks)
    return f"<{heading}>{escaped(section.title)}</{heading}>{blocks}"


def _block(block: Block, level: int) -> str:  # noqa: PLR0911  # one line for each kind of block
    match block:
        case Facts():
            return _facts(block)
        case Table():
            return _table(block)
        case Words(text=text, tone=tone):
            return f'<p class="{tone or "words"}">{escaped(text)}</p>'
        case Items(items=items):
            return f"<ul>{''.join(f'<li>{escaped(item)}</li>' for item in items)}</ul>"
        case Verbatim(text=text):
            return f"<pre>{escaped_lines(text)}</pre>"
        case Bars():
            return _bars(block)
        case Chart():
            return chart(block)
        case Section():
            return f'<div class="part">{_section(block, level + 1)}</div>'
        case _ as unreachable:
            assert_never(unreachable)


def _facts(facts: Facts) -> str:
    if not facts.pairs:
        return ""
    pairs = "".join(f"<div><dt>{escaped(name)}</dt><dd>{_cell(cell)}</dd></div>" for name, cell in facts.pairs)
    return f"<dl>{pairs}</dl>"


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escaped(heading)}</th>' if heading else "<td></td>" for heading in table.headings)
    note = f'<p class="note">{escaped(table.note)}</p>' if table.note else ""
    rows = "".join(_rows(table))
    whole = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<div class="wide" tabindex="0">{whole}</div>{note}'


def _rows(table: Table) -> Iterator[str]:
    for number, row in enumerate(table.rows):
        tone = table.tones[number] if number < len(table.tones) else ""
        cells = "".join(f"<td>{_cell(cell)}</td>" for cell in row)
        yield f'<tr class="{tone}">{cells}</tr>' if tone else f"<tr>{cells}</tr>"


def _cell(cell: Cell) -> str:
    if isinstance(cell, Link):
        return f'<a href="{escaped(cell.href)}" rel="noopener noreferrer">{escaped(cell.text)}</a>'
    return escaped(cell)


def _bars(bars: Bars) -> str:
    parts = "".join(
        f'<span class="k-{class_name(bar.kind or bar.label)}" style="width:{100 * _held(bar.share):.2f}%" '
        f'title="{escaped(f"{bar.label}: {bar.text}")}"></span>'
        for bar in bars.bars
    )
    keys = "".join(
        f'<li><span class="key box k-{class_name(bar.kind or bar.label)}">{escaped(bar.label)}</span> '
        f"{escaped(bar.text)}</li>"
        for bar in bars.bars
    )
    return f'<div class="bar" aria-hidden="true">{parts}</div><ul class="keys">{keys}</ul>'


def _held(share: float) -> float:
    return min(1.0, max(0.0, share)) if share == share else 0.0  # noqa: PLR0124  # NaN has no width
