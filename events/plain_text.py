"""Text of strangers made harmless for a terminal and a log. Pure.

A run's id, a reason or a file's name holds whatever somebody put there: line breaks that would forge a line, escapes
that a terminal obeys, marks that turn the direction of writing.
"""


def printable(text: str) -> str:
    """One line, with what does not print spelled out: a newline is `\\n`, ESC `\\x1b`."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def printable_lines(text: str) -> str:
    """The same of a text whose lines are kept."""
    return "\n".join(printable(line) for line in text.split("\n"))
