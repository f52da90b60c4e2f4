"""Expressions that only compare, as plain functions: the engine's own answers in a hundredth of its time.

Nearly every rule compares features, conditions, the phase or the margin with constants, and joins that with `&&`, `||`,
`!` and `has()`; and every rule is asked at every step. `compiled` reads that much of CEL and no more: of an expression
that says anything else it answers None, and the engine is asked. `expressions` is the only caller; a property test
holds both to the same answers.

CEL has a third truth value: an absent feature, or an order that does not exist (NaN), is an error, which `&&` and `||`
pass over where the other side decides alone (its specification, "Logical Operators"). Here it is None.
"""

import operator
import re
from collections.abc import Callable, Mapping
from math import isnan
from operator import attrgetter
from typing import Any, NamedTuple

Facts = Mapping[str, Any]
"""As `expressions.facts_of` makes them."""
Answer = bool | None
Question = Callable[[Facts], Answer]
Read = Callable[[Facts], Any]

MAX_DEPTH = 32
"""Of parentheses and negations; whoever nests deeper is answered by the engine."""

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>[A-Za-z_][\w.]*)
        | (?P<number>-?\d{1,15}(?:\.\d{1,15}(?:[eE][-+]?\d{1,2})?)?(?![\w.]))
        | (?P<word>'[^'"\\\n\r]*'|"[^'"\\\n\r]*")
        | (?P<sign>==|!=|<=|>=|<|>|&&|\|\||!|\(|\)))""",
    re.VERBOSE | re.ASCII,
)
_KEPT = {"features": "features", "conditions": "conditions", "reasons": "conditions"}
"""By each variable that has members, where the facts keep them: status and reason of a condition stand together."""
_SAME = {"==": operator.eq, "!=": operator.ne}
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def compiled(expression: str) -> Question | None:
    """The expression as a function of the facts; None where it says more than is read here."""
    tokens = _tokens(expression)
    if tokens is None:
        return None
    try:
        reader = _Reader(tokens)
        question = reader.either(0)
        return question if reader.is_done else None
    except _NotPlain:
        return None


class _NotPlain(Exception):
    """Something that only the engine understands."""


class _Token(NamedTuple):
    kind: str
    text: str


def _tokens(expression: str) -> list[_Token] | None:
    tokens, at = [], 0
    text = expression.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None or found.lastgroup is None:
            return None
        tokens.append(_Token(found.lastgroup, found[found.lastgroup]))
        at = found.end()
    return tokens


class _Operand(NamedTuple):
    """One side of a comparison. `kind` is "number" or "word": what is not alike is compared by the engine."""

    kind: str
    read: Read


class _Reader:
    """Reads tokens by recursive descent, in CEL's order of precedence: `||`, `&&`, then comparisons and what `!`
    negates (parentheses, `has()`).
    """

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def is_done(self) -> bool:
        return self._at == len(self._tokens)

    def either(self, depth: int) -> Question:
        terms = [self._both(depth)]
        while self._takes("||"):
            terms.append(self._both(depth))
        return _decided_by(True, terms)

    def _both(self, depth: int) -> Question:
        terms = [self._one(depth)]
        while self._takes("&&"):
            terms.append(self._one(depth))
        return _decided_by(False, terms)

    def _one(self, depth: int) -> Question:
        if depth > MAX_DEPTH:
            raise _NotPlain
        if self._takes("!"):
            if not self.is_done and self._tokens[self._at].text not in ("!", "(", "has"):
                raise _NotPlain  # `!a == b` is `(!a) == b`
            return _not(self._one(depth + 1))
        if self._takes("("):
            inner = self.either(depth + 1)
            self._needs(")")
            return inner
        return self._has() if self._takes("has") else self._comparison()

    def _has(self) -> Question:
        self._needs("(")
        variable, name = _member(self._next())
        self._needs(")")
        kept = _KEPT[variable]
        return lambda facts: name in facts[kept]

    def _comparison(self) -> Question:
        left, sign, right = _operand(self._next()), self._next().text, _operand(self._next())
        if left.kind == right.kind and sign in _SAME:
            return _same(left.read, right.read, _SAME[sign])
        if left.kind == right.kind == "number" and sign in _ORDER:
            return _ordered(left.read, right.read, _ORDER[sign])
        raise _NotPlain

    def _next(self) -> _Token:
        if self.is_done:
            raise _NotPlain
        self._at += 1
        return self._tokens[self._at - 1]

    def _takes(self, text: str) -> bool:
        is_next = not self.is_done and self._tokens[self._at].text == text
        self._at += is_next
        return is_next

    def _needs(self, text: str) -> None:
        if not self._takes(text):
            raise _NotPlain


def _operand(token: _Token) -> _Operand:
    match token:
        case _Token("number", text):
            number = float(text)
            return _Operand("number", lambda _: number)
        case _Token("word", text):
            word = text[1:-1]
            return _Operand("word", lambda _: word)
        case _Token("name", "margin"):
            return _Operand("number", lambda facts: facts["margin"])
        case _Token("name", "phase"):
            return _Operand("word", lambda facts: facts["phase"])
        case _:
            return _read(*_member(token))


def _member(token: _Token) -> tuple[str, str]:
    variable, _, name = token.text.partition(".")
    if variable not in _KEPT or not name.isidentifier():
        raise _NotPlain
    return variable, name


def _read(variable: str, name: str) -> _Operand:
    if variable == "features":
        return _Operand("number", lambda facts: facts["features"].get(name))

    attribute = attrgetter("status" if variable == "conditions" else "reason")

    def read(facts: Facts) -> str | None:
        condition = facts["conditions"].get(name)
        return None if condition is None else attribute(condition)

    return _Operand("word", read)


def _decided_by(value: bool, terms: list[Question]) -> Question:
    """`||` is decided by one True, `&&` by one False; else by all of them together, an error included."""
    if len(terms) == 1:
        return terms[0]

    def question(facts: Facts) -> Answer:
        undecided = False
        for term in terms:
            answer = term(facts)
            if answer is value:
                return value
            undecided = undecided or answer is None
        return None if undecided else not value

    return question


def _not(inner: Question) -> Question:
    def question(facts: Facts) -> Answer:
        answer = inner(facts)
        return None if answer is None else not answer

    return question


def _same(left: Read, right: Read, holds: Callable[[Any, Any], bool]) -> Question:
    def question(facts: Facts) -> Answer:
        one, other = left(facts), right(facts)
        return None if one is None or other is None else holds(one, other)

    return question


def _ordered(left: Read, right: Read, holds: Callable[[Any, Any], bool]) -> Question:
    def question(facts: Facts) -> Answer:
        one, other = left(facts), right(facts)
        if one is None or other is None or isnan(one) or isnan(other):
            return None
        return holds(one, other)

    return question
