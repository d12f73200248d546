"""The words of prototxt, cut as the tokenizer of C++ protobuf cuts them for its text format.

Python's own reader of the format differs: it takes ``1_000``, ``+5``, ``0b11`` and ``inff`` for numbers, and
refuses ``- 0.5``. Source: ``io/tokenizer.cc`` and ``text_format.cc`` of protobuf 3.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

from sparknet.errors import SchemaError


class Kind(Enum):
    """What a token is."""

    IDENTIFIER = "identifier"
    INTEGER = "integer"
    FLOAT = "float"
    STRING = "string"
    SYMBOL = "symbol"
    END = "end of the text"


class Token(NamedTuple):
    """``text`` as it stands at the offset ``start``."""

    kind: Kind
    text: str
    start: int


_SPACE = re.compile(r"(?:[ \n\t\r\v\f]|#[^\n\0]*)+")
_LETTERS = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_HEX = re.compile(r"0[xX][0-9a-fA-F]+")
_OCTAL = re.compile(r"0[0-7]+(?![0-9])")
_DECIMAL = re.compile(r"(?P<whole>\d+)?(?P<part>\.\d*)?(?P<exponent>[eE][+-]?\d+)?(?P<f>[fF])?", re.ASCII)
_ESCAPE = r"\\(?:[abfnrtv\\?'\"]|[0-7]{1,3}|[xX][0-9a-fA-F]{1,2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})"
_STRINGS = {quote: re.compile(rf"{quote}(?:[^{quote}\\\n\0]|{_ESCAPE})*{quote}") for quote in "\"'"}
_ESCAPED = re.compile(_ESCAPE)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11, "\\": 92, "?": 63, "'": 39, '"': 34}


class Text:
    """Prototxt, and where in it things stand; ``file`` is named in errors."""

    def __init__(self, text: str, file: str = "") -> None:
        self.text, self.file = text, file
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column, both counted from 1; only a line feed ends a line, as in protobuf."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def error(self, message: str, offset: int) -> SchemaError:
        line, column = self.place(offset)
        return SchemaError(message, file=self.file, line=line, column=column)

    def tokens(self) -> Iterator[Token]:
        """All tokens, and one of kind END. Raises SchemaError for what protobuf takes for none."""
        text, at, previous_end = self.text, 0, -1
        was_identifier = False
        while True:
            if space := _SPACE.match(text, at):
                at = space.end()
            if at == len(text):
                yield Token(Kind.END, "", at)
                return
            token = self._token(at)
            if was_identifier and previous_end == at and token.kind is Kind.FLOAT:
                raise self.error("a space is needed between a name and a decimal point", at)
            was_identifier = token.kind is Kind.IDENTIFIER
            at = previous_end = at + len(token.text)
            yield token

    def _token(self, at: int) -> Token:
        first = self.text[at]
        if name := _LETTERS.match(self.text, at):
            return Token(Kind.IDENTIFIER, name[0], at)
        if first in "0123456789" or (first == "." and self.text[at + 1 : at + 2] in set("0123456789")):
            return self._number(at)
        if first in _STRINGS:
            return self._string(at)
        if first == "\ufeff":
            raise self.error("a byte order mark: save the file as UTF-8 without one", at)
        if not " " < first < "\x7f":
            code = ord(first)
            shown = f"byte {code - 0xDC00:#x}" if 0xDC80 <= code <= 0xDCFF else repr(first)
            raise self.error(f"{shown} can only stand in a comment or a string", at)
        return Token(Kind.SYMBOL, first, at)

    def _number(self, at: int) -> Token:
        text = self.text
        is_float = False
        if text[at : at + 2] in ("0x", "0X"):
            found = _HEX.match(text, at)
            if found is None:
                raise self.error('"0x" must be followed by hexadecimal digits', at)
        elif text[at] == "0" and text[at + 1 : at + 2] in set("0123456789"):
            found = _OCTAL.match(text, at)
            if found is None:
                raise self.error("a number with a leading zero is octal, and has a digit above 7", at)
        else:
            found = _DECIMAL.match(text, at)
            assert found is not None
            is_float = any(found[group] for group in ("part", "exponent", "f"))
        end = found.end()
        if text[end : end + 1] == "." or _LETTERS.match(text, end):
            word = re.compile(r"[\w.]+").match(text, at)
            raise self.error(f"{word[0] if word else found[0]} is no number", at)
        return Token(Kind.FLOAT if is_float else Kind.INTEGER, found[0], at)

    def _string(self, at: int) -> Token:
        quote = self.text[at]
        if found := _STRINGS[quote].match(self.text, at):
            return Token(Kind.STRING, found[0], at)
        end = at + 1
        while end < len(self.text) and self.text[end] not in "\n\0":
            if self.text[end] == "\\":
                escape = _ESCAPED.match(self.text, end)
                if escape is None:
                    raise self.error(f"{self.text[end : end + 2]} is no escape in a string", end)
                end = escape.end() - 1
            end += 1
        raise self.error("String missing ending quote", at)


def unquoted(text: str) -> bytes:
    """What a token of kind STRING stands for. Bytes that were no UTF-8 in the file come back as they were."""
    parts: list[bytes] = []
    at = 1
    for escape in _ESCAPED.finditer(text, 1, len(text) - 1):
        parts += [text[at : escape.start()].encode("utf-8", "surrogateescape"), _unescaped(escape[0][1:])]
        at = escape.end()
    return b"".join(parts) + text[at:-1].encode("utf-8", "surrogateescape")


def _unescaped(escape: str) -> bytes:
    if escape in _SIMPLE:
        return bytes([_SIMPLE[escape]])
    if escape[0] in "uU":
        code = int(escape[1:], 16)
        return chr(code).encode("utf-8", "replace") if code <= 0x10FFFF else f"\\U{code:08x}".encode()
    base, digits = (16, escape[1:]) if escape[0] in "xX" else (8, escape)
    return bytes([int(digits, base) & 0xFF])


def integer(text: str) -> int:
    """The value of a token of kind INTEGER."""
    if text[:2] in ("0x", "0X"):
        return int(text, 16)
    return int(text, 8) if text[0] == "0" and len(text) > 1 else int(text)
