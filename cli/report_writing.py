"""Where a report goes and in which form: HTML into a file, Markdown and JSON to standard output, words to the terminal.

Used by `report`, `compare` and `similar`.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..control_room.report.making import Made

AsHtml = Annotated[bool, typer.Option("--html", help="A page that needs nothing else, into a file")]
AsMarkdown = Annotated[bool, typer.Option("--md", help="Markdown")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on standard output")]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", help="Where to; - is standard output [default of --html: NAME.html]", show_default=False
    ),
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", help="Of the stack to ask [default: ~/.pilothouse]")]
STANDARD_OUTPUT = Path("-")
LONGEST_NAME = 100


class Form(StrEnum):
    """How a report is written."""

    HTML = "html"
    MARKDOWN = "md"
    JSON = "json"
    TERMINAL = "terminal"


def chosen_form(*, as_html: bool, as_markdown: bool, as_json: bool, otherwise: Form) -> Form:
    """
    Raises:
        UserMistake: more than one was asked for.
    """
    from ..events.errors import UserMistake

    asked = [form for form, said in ((Form.HTML, as_html), (Form.MARKDOWN, as_markdown), (Form.JSON, as_json)) if said]
    if len(asked) > 1:
        raise UserMistake("choose one of --html, --md and --json")
    return asked[0] if asked else otherwise


def deliver(form: Form, made: "Made", output: Path | None) -> None:
    """
    Raises:
        UserMistake: the file cannot be written.
    """
    from .rendering import json_line, out

    match form:
        case Form.TERMINAL if output is None:
            from .document_text import show

            show(out(), made.page())
        case Form.JSON:
            write(json_line(made.data) + "\n", output or STANDARD_OUTPUT)
        case Form.MARKDOWN:
            from ..control_room.report.markdown import written as as_markdown

            write(as_markdown(made.page()), output or STANDARD_OUTPUT)
        case Form.HTML | Form.TERMINAL:
            from ..control_room.report.html import written as as_html

            write(as_html(made.page()), output or Path(f"{file_name(made.name)}.html"))


def file_name(name: str) -> str:
    """A run's name as that of a file: what a file system or a shell might take for more is a dash."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name)
    return kept.lstrip(".-")[:LONGEST_NAME] or "report"


def write(text: str, output: Path) -> None:
    """A whole file, or standard output; what was there before is there until the new one is whole.

    Raises:
        UserMistake: it cannot be written.
    """
    from ..events.errors import UserMistake
    from .rendering import print_line

    if output == STANDARD_OUTPUT:
        print_line(text.rstrip("\n"))
        return
    beside = output.with_name(f".{output.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(output)
    except OSError as error:
        raise UserMistake(f"the report cannot be written to {output}: {error.strerror}") from error
    print_line(f"the report is in {output}")
