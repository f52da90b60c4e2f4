"""YAML as policies use it: a tree in which every value knows its line and column, and no surprise.

Plain words mean what YAML 1.2, and so every editor, says: `on`, `off`, `yes` and `no` are text, `1e-4` is a number,
`12:30` is none. What a person cannot have meant is a fault with its place: a key that stands twice, a tag, a merge, a
second document. The parser's events are read one by one and within bounds, so that no text, however strange, costs more
than its length (an alias counts as much as what it stands for). Called by `policy`; `policy_faults` finds places in the
tree.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml
from yaml import events as parsed

MAX_DEPTH = 16
MAX_VALUES = 20_000
MAX_DIGITS = 18
Path = Sequence[int | str]


class Mark(NamedTuple):
    """A place in the text; both count from 1, as editors do."""

    line: int
    column: int


class Fault(NamedTuple):
    """One mistake: where it stands, the part of the policy that it is in, and what to write instead."""

    mark: Mark
    part: str
    message: str

    def __str__(self) -> str:
        part = f"{self.part}: " if self.part else ""
        return f"line {self.mark.line}, column {self.mark.column}: {part}{self.message}"


@dataclass(slots=True, eq=False)
class Node:
    """A mapping, a list or a scalar. `first` and `last` delimit a scalar in the text; `size` counts its values."""

    value: Any
    mark: Mark
    first: int = 0
    last: int = 0
    size: int = 1
    keys: dict[str, Mark] = field(default_factory=dict)


class Tree(NamedTuple):
    """What was read. `root` is absent for an empty text, or one that cannot be read to its end."""

    root: Node | None
    faults: list[Fault]


def read_tree(text: str) -> Tree:
    """The values of a text and every fault of its form."""
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            reader.take(event)
    except _Unreadable as stop:
        return Tree(None, [*reader.faults, stop.fault])
    except yaml.YAMLError as error:
        return Tree(None, [*reader.faults, _not_yaml(text, error)])
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        # what the parser stumbles over, besides its own errors, in escapes and directives ("\UFFFFFFFF")
        return Tree(None, [*reader.faults, Fault(reader.last, "", f"this is not YAML ({error})")])
    return Tree(reader.root, reader.faults)


def plain(node: Node) -> Any:
    """The values alone."""
    match node.value:
        case dict() as members:
            return {key: plain(member) for key, member in members.items()}
        case list() as items:
            return [plain(item) for item in items]
        case scalar:
            return scalar


def located(root: Node, path: Path) -> Node:
    """The innermost value on a path. Steps that lead nowhere are names of choices, not of values: passed over."""
    node = root
    for step in path:
        node = _below(node, step) or node
    return node


def _below(node: Node, step: int | str) -> Node | None:
    match node.value:
        case dict() as members:
            found: Node | None = members.get(str(step))
            return found
        case list() as items if isinstance(step, int) and step < len(items):
            item: Node = items[step]
            return item
        case _:
            return None


def place_in(text: str, node: Node, offset: int) -> Mark:
    """Where in the text the character at `offset` of a scalar stands, however the scalar is quoted or folded."""
    raw = text[node.first : node.last]
    at = raw.find("\n") + 1 if raw[:1] in ("|", ">") else int(raw[:1] in ("'", '"'))
    before = sum(not each.isspace() for each in str(node.value)[:offset])
    while at < len(raw) and (before > 0 or raw[at].isspace()):
        before -= not raw[at].isspace()
        at += 1
    return mark_at(text, node.first + at)


def mark_at(text: str, index: int) -> Mark:
    """The line and column of a character."""
    before = text[:index]
    return Mark(before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)


class _Unreadable(Exception):  # never leaves this module
    """Nothing behind this can be read."""

    def __init__(self, mark: Mark, message: str) -> None:
        super().__init__(message)
        self.fault = Fault(mark, "", message)


@dataclass(slots=True)
class _Open:
    """A mapping or list whose end has not come; `key` is the one that waits for its value."""

    node: Node
    anchor: str | None
    key: str | None = None


class _Reader:
    """Builds the tree event by event, without recursion."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.faults: list[Fault] = []
        self.last = Mark(1, 1)
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._unfinished: set[str] = set()
        self._values = 0

    def take(self, event: parsed.Event) -> None:
        self.last = _mark(event.start_mark)
        match event:
            case parsed.DocumentStartEvent() if self.root is not None:
                raise _Unreadable(self.last, "a second document begins here: one policy a file")
            case parsed.ScalarEvent():
                self._put(self._scalar(event), event.anchor)
            case parsed.AliasEvent():
                self._put(self._meant(str(event.anchor)), None)
            case parsed.SequenceStartEvent() | parsed.MappingStartEvent():
                self._begin(event)
            case parsed.SequenceEndEvent() | parsed.MappingEndEvent():
                done = self._open.pop()
                if done.anchor is not None:
                    self._unfinished.discard(done.anchor)
                self._put(done.node, done.anchor, counted=True)
            case _:
                pass  # the stream and its documents begin and end

    def _begin(self, event: parsed.CollectionStartEvent) -> None:
        if len(self._open) >= MAX_DEPTH:
            raise _Unreadable(self.last, f"nested deeper than {MAX_DEPTH} levels")
        if self._awaits_key():
            raise _Unreadable(
                self.last, "a key must be a word, not a list or a mapping; an expression with { needs quotes"
            )
        self._refuse_tag(event.tag)
        if event.anchor is not None:
            self._unfinished.add(event.anchor)
        value: Any = {} if isinstance(event, parsed.MappingStartEvent) else []
        self._open.append(_Open(Node(value, self.last), event.anchor))

    def _awaits_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].node.value, dict) and self._open[-1].key is None

    def _put(self, node: Node, anchor: str | None, *, counted: bool = False) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        self._values += 1 if counted else node.size
        if self._values > MAX_VALUES:
            raise _Unreadable(self.last, f"more than {MAX_VALUES} values, counting what aliases (*) stand for")
        if not self._open:
            self.root = node
            return
        around = self._open[-1]
        if isinstance(around.node.value, list):
            around.node.value.append(node)
        elif around.key is None:
            around.key = self._key(around.node, node)
            return
        else:
            around.node.value.setdefault(around.key, node)
            around.key = None
        around.node.size += node.size

    def _key(self, mapping: Node, node: Node) -> str:
        if isinstance(node.value, dict | list):
            raise _Unreadable(self.last, "a key must be a word, not a list or a mapping")
        key = str(node.value)
        if key == "<<":
            self._say("merging (<<) is not understood here: write the keys out, or let an alias (*) be the whole value")
        elif key in mapping.value:
            self._say(f"the key {key!r} stands twice; first in line {mapping.keys[key].line}")
        mapping.keys.setdefault(key, self.last)
        return key

    def _meant(self, anchor: str) -> Node:
        if anchor in self._unfinished:
            raise _Unreadable(self.last, f"*{anchor} would contain itself")
        if anchor not in self._anchors:
            raise _Unreadable(self.last, f"nothing is called &{anchor} above; a text that begins with * needs quotes")
        return self._anchors[anchor]

    def _scalar(self, event: parsed.ScalarEvent) -> Node:
        self._refuse_tag(event.tag)
        value: Any = event.value
        if event.style is None and event.tag is None and not self._awaits_key():
            value = self._word(event.value)
        if isinstance(value, str) and not _is_sayable(value):
            self._say("half a surrogate pair is no character")
            value = ""
        first, last = (mark.index if mark is not None else 0 for mark in (event.start_mark, event.end_mark))
        return Node(value, self.last, first, last)

    def _word(self, word: str) -> Any:
        """A plain word by the core schema of YAML 1.2."""
        if word in ("", "~", "null", "Null", "NULL"):
            return None
        if word.lower() in ("true", "false") and word in (word.lower(), word.upper(), word.title()):
            return word.lower() == "true"
        if _INTEGER.fullmatch(word):
            return self._integer(word)
        if _FLOAT.fullmatch(word):
            return float(word)
        return _SPECIAL.get(word.lower(), word)

    def _integer(self, word: str) -> int:
        if len(word) > MAX_DIGITS:
            self._say(f"a number of {len(word)} digits is none that a policy may have")
            return 0
        if _OCTAL.fullmatch(word):
            self._say(
                f"YAML programs disagree about {word}: write {word[0].strip('0123456789')}{int(word.lstrip('+-'))}"
            )
        return int(word)

    def _refuse_tag(self, tag: str | None) -> None:
        if tag is not None:
            self._say(f"{tag} is a tag in YAML: a text that begins with ! needs quotes around it")

    def _say(self, message: str) -> None:
        self.faults.append(Fault(self.last, "", message))


_INTEGER = re.compile(r"[-+]?[0-9]+", re.ASCII)
_OCTAL = re.compile(r"[-+]?0[0-9]+", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_SPECIAL = {
    ".nan": float("nan"),
    **dict.fromkeys((".inf", "+.inf"), float("inf")),
    "-.inf": float("-inf"),
}


def _is_sayable(text: str) -> bool:
    return not any("\ud800" <= each <= "\udfff" for each in text)


def _mark(mark: Any) -> Mark:
    return Mark(mark.line + 1, mark.column + 1)


def _not_yaml(text: str, error: yaml.YAMLError) -> Fault:
    """The parser's error as a line for people; for the most frequent slips, what to write."""
    if isinstance(error, yaml.reader.ReaderError):
        return Fault(mark_at(text, error.position), "", "this character may not stand in YAML")
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return Fault(Mark(1, 1), "", f"this is not YAML: {error}")
    mark, problem = _mark(error.problem_mark), error.problem or ""
    lines = text.splitlines()
    line = lines[mark.line - 1] if mark.line <= len(lines) else ""
    if "end of stream" in problem and error.context_mark is not None:
        return Fault(_mark(error.context_mark), "", "what is opened here (a quote, a bracket) is never closed")
    said = next(_hints(problem, line), f"this is not YAML: {problem}")
    return Fault(mark, "", said)


def _hints(problem: str, line: str) -> Iterator[str]:
    if "\\t" in problem or "\t" in line[: len(line) - len(line.lstrip())]:
        yield "a tab: YAML is indented with spaces"
    if re.search(r":\s+!", line):
        yield "an expression that begins with ! needs quotes around it"
    if "mapping values are not allowed" in problem:
        yield "a colon where no key can be: indent the line as its neighbours are, or put a text with ': ' in quotes"
    if "expected <block end>" in problem or "could not find expected ':'" in problem:
        yield "this does not belong to what stands above: look at the indentation, and at quotes left open"
