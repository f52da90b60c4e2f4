"""What is wrong with a policy's expression, and what to write instead: every slip at once, each with its offset.

CEL as we use it has no types before it runs: a condition that does not exist, a status in small letters, a feature
compared with a text are valid and never true. So the names and words are looked up here, and every part between `&&`,
`||`, `!` and `?:` is run by itself once, so that a mistake behind a part that is false does not wait for the day on
which it is true. Called by `policy` at load; `expressions` evaluates.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import NamedTuple, get_args

import cel

from ..events.decisions import ConditionType, Phase, Status
from . import expressions

MAX_NESTING = 24
"""Of brackets and negations; the engine recurses."""

TEXT = "§"
"""Stands for each character of a text while the rest is looked at: no word, no space, no sign of CEL."""

_STRINGS = re.compile(r"'''.*?'''|\"\"\".*?\"\"\"|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|//[^\n]*", re.DOTALL)
_MEMBER = re.compile(r"(?<![\w.])(features|conditions|reasons)\s*\.\s*(\w+)\b(?!\s*\()")
_BOUND = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\(\s*(\w+)\s*,")
"""The name a macro binds: `features.all(name, ...)`."""
_SUBJECT = r"(?<![\w.])(phase|margin|features(?:\.\w+|\[[\s§]*\])|conditions(?:\.\w+|\[[\s§]*\]))"
_BEFORE_EQUAL = re.compile(_SUBJECT + r"\s*[!=]=\s*$")
_BEHIND_EQUAL = re.compile(r"\s*[!=]=\s*" + _SUBJECT)
_IN_LIST = re.compile(_SUBJECT + r"\s+in\s*\[[^\]]*$")
_TRUTH = re.compile(r"(?<![\w.])conditions(?:\.\w+|\[[\s§]*\])\s*[!=]=\s*(true|false)\b")
_INTEGER = re.compile(r"(?<![\w.'\"])(\d+)(?![\w.'\"])")
_POSITION = re.compile(r"<input>:(\d+):(\d+): (.*)")
_SPLITS = ("&&", "||", "?", ":")
_RELATIONS = ("==", "!=", "<", ">")


FEW = 12
"""So many names are listed even beside the one that was probably meant."""


class Slip(NamedTuple):
    """One mistake, at this character of the expression."""

    offset: int
    message: str


class _Literal(NamedTuple):
    first: int
    last: int
    word: str


def slips(expression: str) -> list[Slip]:
    """Every mistake in the expression, in the order in which they stand; empty for one that can be used."""
    masked = _masked(expression)
    if (deep := _too_deep(masked)) is not None:
        return [Slip(deep, f"nested deeper than {MAX_NESTING} levels")]
    fault = _syntax(expression)
    if fault is not None:
        return [fault]
    found = [*_names(expression, masked), *_words(expression, masked)]
    told = {slip.offset for slip in found}
    for first, last in _parts(masked, 0, len(masked)):
        if not any(first <= offset < last for offset in told):
            found += _trial(expression, masked, first, last)
    return sorted(found)


def unguarded(expression: str) -> list[Slip]:
    """The features that the expression needs, that a run may not have, and that no `has()` asks for first."""
    masked = _masked(expression)
    asked = set(re.findall(r"\bhas\(\s*features\s*\.\s*(\w+)\s*\)", masked))
    asked |= {word.word for word in _literals(expression) if re.match(r"\s*in\s+features\b", masked[word.last :])}
    found: dict[str, int] = {}
    for variable, name, offset in _members(expression, masked):
        if variable == "features" and name not in asked | expressions.ALWAYS_KNOWN:
            found.setdefault(name, offset)
    return [Slip(offset, name) for name, offset in found.items()]


def _masked(expression: str) -> str:
    """The expression with every character of a text replaced and comments blanked out, of the same length."""
    return _STRINGS.sub(lambda found: (" " if found[0].startswith("//") else TEXT) * len(found[0]), expression)


def _literals(expression: str) -> list[_Literal]:
    found = [match for match in _STRINGS.finditer(expression) if not match[0].startswith("//")]
    return [_Literal(match.start(), match.end(), match[0].strip("'\"")) for match in found]


def _too_deep(masked: str) -> int | None:
    depth = negations = 0
    for offset, sign in enumerate(masked):
        depth += (sign in "([{") - (sign in ")]}")
        negations = negations + 1 if sign in "!-" else negations if sign.isspace() else 0
        if max(depth, negations) > MAX_NESTING:
            return offset
    return None


def _syntax(expression: str) -> Slip | None:
    try:
        cel.compile(expression)
    except ValueError as error:
        said = _POSITION.search(str(error))
        if said is None:
            return Slip(0, " ".join(str(error).split())[:200])
        lines = expression.split("\n")
        before = sum(len(line) + 1 for line in lines[: int(said[1]) - 1])
        return Slip(min(before + int(said[2]) - 1, len(expression)), _problem(said[3]))
    return None


def _problem(said: str) -> str:
    if "<EOF>" in said.partition(" expecting ")[0]:
        return "the expression ends where something is missing"
    return said.partition(" expecting ")[0].removeprefix("Syntax error: ")[:200]


def _members(expression: str, masked: str) -> Iterator[tuple[str, str, int]]:
    """Every `features.name` and `features['name']`, but for those that `has` asks for: variable, name, offset."""
    for found in _MEMBER.finditer(masked):
        if not re.search(r"\bhas\(\s*$", masked[: found.start()]):
            yield found[1], found[2], found.start(2)
    for word in _literals(expression):
        if index := re.search(r"(?<![\w.])(features|conditions|reasons)\s*\[\s*$", masked[: word.first]):
            yield index[1], word.word, word.first


def _names(expression: str, masked: str) -> Iterator[Slip]:
    asked = [(found[1], found[2], found.start(2)) for found in _MEMBER.finditer(masked)]
    for variable, name, offset in dict.fromkeys([*asked, *_members(expression, masked)]):
        known: tuple[str, ...] = tuple(expressions.FEATURES) if variable == "features" else get_args(ConditionType)
        if name not in known:
            yield Slip(offset, not_there("feature" if variable == "features" else "condition", name, known))
    bound = {*expressions.VARIABLES, *_BOUND.findall(masked)}
    for name in cel.compile(expression).variables():
        if name not in bound:
            at = re.search(rf"(?<![\w.]){re.escape(name)}\b", masked)
            yield Slip(at.start() if at else 0, _stray(name))


def _stray(name: str) -> str:
    if name in expressions.FEATURES:
        return f"no variable {name!r}; write features.{name}"
    if name in get_args(ConditionType):
        return f"no variable {name!r}; write conditions.{name}"
    if name in (*get_args(Phase), *get_args(Status)):
        return f"no variable {name!r}; a text needs quotes: '{name}'"
    return not_there("variable", name, expressions.VARIABLES)


def _words(expression: str, masked: str) -> Iterator[Slip]:
    """Words that a phase or a status is compared with, and that are none."""
    for word in _literals(expression):
        before, behind = masked[: word.first], masked[word.last :]
        found = _BEFORE_EQUAL.search(before) or _BEHIND_EQUAL.match(behind) or _IN_LIST.search(before)
        if found is None:
            continue
        if found[1].startswith(("features", "margin")):
            yield Slip(word.first, f"{found[1]} is a number and never equal to a text")
            continue
        what, words = ("phase", get_args(Phase)) if found[1] == "phase" else ("status", get_args(Status))
        if word.word not in words:
            yield Slip(word.first, not_there(what, word.word, words))
    for truth in _TRUTH.finditer(masked):
        yield Slip(truth.start(1), f"a status is a text: write '{truth[1].title()}'")


def not_there(what: str, name: str, known: Sequence[str]) -> str:
    """That there is no such thing, what was probably meant, and, where that does not say enough, what there is."""
    near = get_close_matches(name, known, n=1, cutoff=0.6) or [one for one in known if one.lower() == name.lower()]
    there = f"there are: {', '.join(known) or 'none'}" if not near or len(known) <= FEW else ""
    if not near:
        return f"no {what} {name!r}; {there}"
    return f"no {what} {name!r}; did you mean {near[0]!r}? {there[:1].upper()}{there[1:]}".rstrip()


def _parts(masked: str, first: int, last: int) -> Iterator[tuple[int, int]]:
    """The stretches of the expression that are true or false by themselves."""
    while first < last and masked[first].isspace():
        first += 1
    while last > first and masked[last - 1].isspace():
        last -= 1
    cuts = list(_cuts(masked, first, last, _SPLITS))
    if cuts:
        for begin, end in zip([first, *(end for _, end in cuts)], [*(begin for begin, _ in cuts), last], strict=True):
            yield from _parts(masked, begin, end)
    elif masked[first:last].startswith("!") and not any(_cuts(masked, first + 1, last, _RELATIONS)):
        yield from _parts(masked, first + 1, last)
    elif masked[first:last].startswith("(") and _closes(masked, first) == last - 1:
        yield from _parts(masked, first + 1, last - 1)
    elif first < last:
        yield first, last


def _cuts(masked: str, first: int, last: int, signs: Sequence[str]) -> Iterator[tuple[int, int]]:
    depth = 0
    for offset in range(first, last):
        depth += (masked[offset] in "([{") - (masked[offset] in ")]}")
        sign = next((sign for sign in signs if depth == 0 and masked.startswith(sign, offset, last)), None)
        if sign is not None:
            yield offset, offset + len(sign)


def _closes(masked: str, first: int) -> int:
    depth = 0
    for offset in range(first, len(masked)):
        depth += (masked[offset] in "([{") - (masked[offset] in ")]}")
        if depth == 0:
            return offset
    return -1


def _trial(expression: str, masked: str, first: int, last: int) -> Iterator[Slip]:
    """Run one part on a run of which everything is known."""
    part = expression[first:last]
    try:
        value = cel.compile(part).execute(expressions.trial())
    except TypeError as error:
        number = _INTEGER.search(masked, first, last)
        if number is None:
            yield Slip(first, f"{part}: {str(error).partition('. CEL does not')[0]}"[:200])
        else:
            yield Slip(number.start(), f"numbers are doubles: write {number[1]}.0, not {number[1]}")
    except Exception as error:  # noqa: BLE001  # the engine documents no tree of errors; every one means "not a usable expression"
        yield Slip(first, f"{part}: {str(error).partition('. Check that')[0]}"[:200])
    else:
        if not isinstance(value, bool):
            yield Slip(first, f"{part} gives {_type(value)}, must be true or false"[:200])


def _type(value: object) -> str:
    return {"float": "a number", "int": "a number", "str": "a text"}.get(type(value).__name__, type(value).__name__)
