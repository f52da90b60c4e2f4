"""Reports as HTML, Markdown and on a terminal: nothing told does anything, axes hold any number, files are whole."""

import io
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from pilothouse.cli.document_text import show
from pilothouse.cli.rate import chosen_sample, rating_of, read_rating
from pilothouse.cli.report_writing import file_name, write
from pilothouse.control_room.report.document import (
    Bar,
    Bars,
    Chart,
    Document,
    Facts,
    Items,
    Line,
    Mark,
    Section,
    Shade,
    Table,
    Verbatim,
    Words,
    linked,
)
from pilothouse.control_room.report.figures import number, share, size, span
from pilothouse.control_room.report.html import written as as_html
from pilothouse.control_room.report.markdown import written as as_markdown
from pilothouse.control_room.report.scales import scale_of, ticks_of
from pilothouse.events.errors import UserMistake

NAN, INF = math.nan, math.inf
ALLOWED = frozenset(
    {
        *(
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "header",
            "nav",
            "main",
            "footer",
            "section",
            "div",
            "span",
        ),
        *("h1", "h2", "h3", "h4", "p", "b", "ul", "li", "dl", "dt", "dd", "a", "pre", "figure", "figcaption"),
        *("table", "thead", "tbody", "tr", "th", "td", "svg", "path", "rect", "line"),
    }
)
ALLOWED_ATTRIBUTES = frozenset(
    {
        *(
            "lang",
            "charset",
            "http-equiv",
            "content",
            "name",
            "id",
            "href",
            "rel",
            "class",
            "style",
            "title",
            "role",
            "tabindex",
        ),
        *(
            "aria-label",
            "aria-hidden",
            "scope",
            "viewbox",
            "preserveaspectratio",
            "d",
            "x",
            "y",
            "x1",
            "x2",
            "y1",
            "y2",
        ),
        *("width", "height"),
    }
)


class Parsed(HTMLParser):
    """Which tags and attributes a browser would see, and where links lead."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [str(value) for name, value in attrs if name == "href"]


def document_of(text: str, y: float = 1.0) -> Document:
    """One of every block, with this text wherever text may stand."""
    lines = (
        Line(text, ((0.0, 1.0), (1.0, y), (2.0, 3.0)), ((0.0, 0.5, 2.0),)),
        Line(text, ((1.0, y),), faint=True, dots=True),
    )
    mark = Mark(1.0, "intervention", text, text)
    blocks = (
        Facts(((text, text), (text, linked(text, text)))),
        Table((text,), ((text,), (linked(text, f"https://example.org/{text}"),)), text, ("bad",)),
        Words(text, "warn"),
        Items((text,)),
        Verbatim(text),
        Bars((Bar(text, 0.5, text, text), Bar(text, NAN, text))),
        Chart(text, text, lines, (Shade(0.0, 1.0, text),), (mark,), note=text),
        Section(text, (Words(text),)),
    )
    return Document(text, text, (Section(text, blocks),), 1, Facts(((text, text),)))


nasty = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("<>&\"'`|\\[]()#\n\r\x1b\u202e"), max_size=30
)


@settings(max_examples=50)
@given(nasty, st.floats())
def test_whatever_was_told_a_page_has_only_our_own_tags_and_leads_only_to_the_web(text: str, y: float) -> None:
    page = as_html(document_of(text, y))
    parsed = Parsed()
    parsed.feed(page)
    assert parsed.tags <= ALLOWED
    assert parsed.attributes <= ALLOWED_ATTRIBUTES
    assert all(link.startswith(("#", "http://", "https://")) for link in parsed.links)
    assert all(letter.isprintable() or letter == "\n" for letter in page)
    assert "nan" not in page.partition("<svg")[2].partition("</svg")[0].lower()


@settings(max_examples=50)
@given(nasty, st.floats())
def test_whatever_was_told_markdown_and_a_terminal_get_text(text: str, y: float) -> None:
    document = document_of(text, y)
    for told in (as_markdown(document), on_terminal(document)):
        assert all(letter.isprintable() or letter == "\n" for letter in told)


def on_terminal(document: Document) -> str:
    console = Console(file=io.StringIO(), width=200, no_color=True, highlight=False)
    show(console, document)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize(
    "text", ["<b>", "a|b", "# no heading", "1. no list", "- no item", "`x`", "[x](y)", "---", "=== "]
)
def test_markdown_shows_what_would_mean_something(text: str) -> None:
    escaped = as_markdown(Document("t", text, (), 1)).splitlines()[2]
    assert escaped != text
    assert not escaped.startswith(("#", "- ", "1. ", "---", "===", "<", "`"))


def test_a_text_cannot_leave_its_fence() -> None:
    told = as_markdown(Document("t", "l", (Section("s", (Verbatim("```\n# heading"),)),), 1))
    assert told.count("````") == 2


@pytest.mark.parametrize(
    "href", ["javascript:alert(1)", "file:///etc/passwd", "data:text/html,x", "http//x", "//[x", ""]
)
def test_only_addresses_of_the_web_are_links(href: str) -> None:
    assert isinstance(linked("x", href), str)


@given(st.lists(st.floats(), max_size=6))
def test_any_numbers_have_an_axis_on_which_they_stand(values: list[float]) -> None:
    scale = scale_of(values)
    assert scale.low < scale.high
    assert all(0.0 <= scale.at(value) <= 1.0 for value in values if math.isfinite(value))
    ticks = ticks_of(scale)
    assert 1 <= len(ticks) < 30
    assert all(0.0 <= tick.at <= 1.0 for tick in ticks)


def test_what_was_undone_does_not_flatten_what_counts() -> None:
    lines = (Line("loss", ((0.0, 2.0), (1.0, 3.0))), Line("loss", ((1.0, 1e9),), faint=True))
    page = as_html(Document("t", "l", (Section("s", (Chart("c", "step", lines),)),), 1))
    assert "logarithmic" not in page
    assert "What was undone reaches 1,000,000,000, beyond the axis." in page


def test_a_curve_without_a_finite_value_says_so() -> None:
    page = as_html(
        Document("t", "l", (Section("s", (Chart("loss", "step", (Line("", ((0.0, None), (1.0, NAN))),)),)),), 1)
    )
    assert "loss: no finite value was logged." in page


def test_figures_read_well() -> None:
    assert [number(value) for value in (None, NAN, -INF, 1234567, 0.123456, 3.0)] == [
        *("–", "NaN", "-Infinity", "1,234,567", "0.1235", "3"),
    ]
    assert [span(value) for value in (0.85, 12.41, 200.0, 18_720.0, 183_600.0, None)] == [
        *("850 ms", "12.4 s", "3 min 20 s", "5 h 12 min", "2 d 3 h", "–"),
    ]
    assert [share(value) for value in (0.5, 0.031, 0.0)] == ["50%", "3.1%", "0%"]
    assert [size(value) for value in (512, 1_536, 5 * 2**40)] == ["512 B", "1.5 KiB", "5.0 TiB"]


# ------------------------------------------------------------------------------------------------------------- files


def test_a_report_takes_its_place_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text("before")
    write("after", file)
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("run.html", "after")]
    with pytest.raises(UserMistake, match="cannot be written to"):
        write("after", tmp_path / "nowhere" / "run.html")


@pytest.mark.parametrize(
    "name, said", [("a/b", "a-b"), ("../../x", "x"), ("-rf", "rf"), ("", "report"), ("é <x>", "é--x-")]
)
def test_a_run_of_any_name_has_a_harmless_file(name: str, said: str) -> None:
    assert file_name(name) == said


# ----------------------------------------------------------------------------------------------------------- ratings


@pytest.mark.parametrize(
    "text, value", [("good", 1.0), ("BAD", 0.0), ("0.25", 0.25), ("80%", 0.8), ("4/5", 0.8), ("0/5", 0.0)]
)
def test_a_rating_is_from_nothing_to_one(text: str, value: float) -> None:
    assert read_rating(text) == value


@pytest.mark.parametrize("text", ["", "nan", "inf", "2", "6/5", "1/0", "-1", "110%", "%", "great"])
def test_what_is_no_rating_is_refused(text: str) -> None:
    with pytest.raises(UserMistake, match="is no rating: write good, bad, a number from 0 to 1"):
        read_rating(text)


def test_a_sample_is_found_by_the_end_of_its_id() -> None:
    samples = [{"sample_id": "writer-1:4"}, {"sample_id": "writer-1:14"}, {"sample_id": "writer-2:7"}]
    assert chosen_sample(samples, "last", "r") is samples[2]
    assert chosen_sample(samples, "2:7", "r") is samples[2]
    assert chosen_sample(samples, "1:4", "r") is samples[0]
    with pytest.raises(UserMistake, match="more than one sample ends so; such as writer-1:4, writer-1:14"):
        chosen_sample(samples, "4", "r")


def test_a_rating_says_of_what_by_whom_and_without_secrets() -> None:
    event = rating_of("run", "writer:3", 0.8, {"who": "ada", "text": "token=hf_abcdefghijklmnopqrstuvwxyz"}, 5)
    assert (event.about, event.rating, event.who, event.at) == ("writer:3", 0.8, "ada", 5)
    assert "hf_" not in event.text
    with pytest.raises(UserMistake, match="who: "):
        rating_of("run", "writer:3", 0.8, {"who": "", "text": ""}, 5)
