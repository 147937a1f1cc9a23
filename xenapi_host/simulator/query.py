"""The query language of get_all_records_where: field "x" = "y", and, or, not, parentheses, true, false.

Fields are spelled as in XAPI's database (name__label); values are compared as text. The two texts of a refusal are
those of XAPI's lexer and parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from xmlrpc.client import DateTime

from xenapi_host.simulator.failure import Failure
from xenapi_host.simulator.model import Class

Read = Callable[[str], Any]
Matches = Callable[[Read], bool]
_Operand = Callable[[Read], str]

_TOKEN = re.compile(r'\s*(?:(field|true|false|and|or|not)\b|(\()|(\))|(=)|"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\')')


def as_text(value: Any) -> str:
    """A field's value as XAPI's database writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "(" + " ".join(f"'{as_text(v)}'" for v in value) + ")"
    if isinstance(value, dict):
        return "(" + " ".join(f"('{k}' '{as_text(v)}')" for k, v in value.items()) + ")"
    return value.value if isinstance(value, DateTime) else str(value)


class _Parser:
    """Recursive descent; `and` and `or` have the same rank and read from the left."""

    def __init__(self, expression: str, known: Class) -> None:
        self.expression = expression
        self.known = known
        self.tokens = self._lex()
        self.at = 0

    def _lex(self) -> list[tuple[str, str]]:
        tokens, position = [], 0
        while self.expression[position:].strip():
            found = _TOKEN.match(self.expression, position)
            if found is None or found.group(6) is not None:
                raise Failure("INVALID_VALUE", self.expression, 'Failure("lexing: empty token")')
            word, left, right, equals, quoted, _ = found.groups()
            tokens.append(("text", quoted) if quoted is not None else (word or left or right or equals or "", ""))
            position = found.end()
        return tokens

    def _refuse(self) -> Failure:
        return Failure("INVALID_VALUE", self.expression, "Stdlib.Parsing.Parse_error")

    def peek(self) -> str:
        return self.tokens[self.at][0] if self.at < len(self.tokens) else ""

    def take(self, kind: str) -> str:
        if self.peek() != kind:
            raise self._refuse()
        self.at += 1
        return self.tokens[self.at - 1][1]

    def whole(self) -> Matches:
        matches = self.expression_()
        if self.peek():
            raise self._refuse()
        return matches

    def expression_(self) -> Matches:
        left = self.term()
        while self.peek() in ("and", "or"):
            word = self.peek()
            self.take(word)
            left = _both(left, self.term()) if word == "and" else _either(left, self.term())
        return left

    def term(self) -> Matches:
        kind = self.peek()
        if kind in ("true", "false"):
            self.take(kind)
            return lambda read: kind == "true"
        if kind == "not":
            self.take("not")
            inner = self.term()
            return lambda read: not inner(read)
        if kind == "(":
            self.take("(")
            inside = self.expression_()
            self.take(")")
            return inside
        left = self.operand()
        self.take("=")
        right = self.operand()
        return lambda read: left(read) == right(read)

    def operand(self) -> _Operand:
        if self.peek() == "field":
            self.take("field")
            name = self.take("text")
            return self._field(name)
        value = self.take("text")
        return lambda read: value

    def _field(self, name: str) -> _Operand:
        field = self.known.by_database_name.get(name)

        def read_field(read: Read) -> str:
            if field is None:
                raise Failure("INTERNAL_ERROR", "missing field", name, "")
            return as_text(read(field.name))

        return read_field


def _both(left: Matches, right: Matches) -> Matches:
    return lambda read: left(read) and right(read)


def _either(left: Matches, right: Matches) -> Matches:
    return lambda read: left(read) or right(read)


def parse(expression: str, known: Class) -> Matches:
    return _Parser(expression, known).whole()
