"""Text of strangers made harmless, for each of the ways in which a report is written. Pure.

A run's id, configuration and samples hold whatever somebody put there: markup, terminal escapes, marks that turn the
direction of writing. They are shown, and do nothing.
"""

import html
import re
from itertools import count

from ...events.plain_text import printable

_MARKDOWN = re.compile(r"([\\`*_\[\]|~$])")
_AT_START = re.compile(r"^(\s*)([#+\-=])(?=[\s#\-=]|$)")
_ORDERED = re.compile(r"^(\s*\d+)([.)])(?=\s|$)")
"""What would begin a heading, a rule or a list."""


def visible_lines(text: str) -> str:
    """The same of a text whose lines are kept."""
    return "\n".join(printable(line.expandtabs(4)) for line in text.replace("\r\n", "\n").split("\n"))


def escaped(text: str) -> str:
    """One line for HTML, between tags or in quotes."""
    return html.escape(printable(text), quote=True)


def class_name(name: str) -> str:
    """A name as part of a class of HTML: letters only, so that nothing told can leave the attribute."""
    return "".join(letter for letter in name.lower() if letter.isascii() and letter.isalpha()) or "other"


def escaped_lines(text: str) -> str:
    """Several lines for HTML's `pre`."""
    return html.escape(visible_lines(text), quote=True)


def marked_down(text: str) -> str:
    """One line for Markdown, also in the cell of a table."""
    told = _MARKDOWN.sub(r"\\\1", html.escape(printable(text), quote=False))
    return _ORDERED.sub(r"\1\\\2", _AT_START.sub(r"\1\\\2", told))


def fenced(text: str) -> str:
    """Several lines for Markdown, in a fence that they cannot close."""
    fence = next("`" * ticks for ticks in count(3) if "`" * ticks not in text)
    return f"{fence}text\n{visible_lines(text)}\n{fence}"
