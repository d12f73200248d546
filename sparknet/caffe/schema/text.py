"""Prototxt: protobuf's text format, read with errors that say where and what was probably meant.

>>> parse('name: "n"  layer { name: "ip" typ: "InnerProduct" }', NetParameter(), file="net.prototxt")
Traceback (most recent call last):
sparknet.errors.SchemaError: net.prototxt:1:32: LayerParameter has no field "typ"; the nearest is "type"
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from sparknet.caffe.schema import caffe_pb2
from sparknet.errors import ModelError, SchemaError

M = TypeVar("M", bound=Message)

_UNKNOWN_FIELD = re.compile(r'Message type "[\w.]*?(\w+)" has no field named "(\w+)"')
_UNKNOWN_VALUE = re.compile(r'Enum type "[\w.]*?(\w+)" has no value named (\w+)')
_REPEATED = re.compile(r'Message type "[\w.]*?(\w+)" should not have multiple "(\w+)" fields')
_PREFIX = re.compile(r"^(?:\d+:\d+ : )?(?:'.*?': )?", re.DOTALL)
_TOKEN = re.compile(
    r"""\#[^\n]* | "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*' | [{}<>\[\]:;,] | [^\s{}<>\[\]:;,"'\#]+""", re.X
)
_OPENING = {"{": "}", "<": ">", "[": "]"}


@dataclass(frozen=True, kw_only=True)
class UnknownField:
    """A field that was tolerated: where it stood and in which message."""

    message: str
    field: str
    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file or '<text>'}:{self.line}:{self.column}: {self.message}.{self.field}"


def parse(text: str, message: M, *, file: str = "") -> M:
    """Fill ``message`` from prototxt and return it.

    Raises SchemaError with file, line, column and, for a name that is not known, the nearest one that is.
    """
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise _explained(error, file) from None
    missing: list[str] = message.FindInitializationErrors()  # type: ignore[attr-defined]  # not in the stubs
    if missing:
        raise SchemaError(f"required and not given: {', '.join(missing)}", file=file)
    return message


def parse_tolerantly(text: str, message: M, *, file: str = "") -> tuple[M, list[UnknownField]]:
    """As ``parse``, but leave out fields the schema does not have, and say which they were.

    For nets of Caffe's forks (CaffeOnSpark's ``source_class``, say), whose extra fields BVLC Caffe refuses.
    """
    skipped: list[UnknownField] = []
    while True:
        fresh = type(message)()
        try:
            text_format.Parse(text, fresh)
        except text_format.ParseError as error:
            found = _UNKNOWN_FIELD.search(str(error))
            if found is None:
                raise _explained(error, file) from None
            line, column = error.GetLine() or 0, error.GetColumn() or 0
            skipped.append(
                UnknownField(message=found[1], field=found[2], file=file, line=line, column=column)
            )
            text = _without_field(text, _position(text, line, column))
        else:
            message.MergeFrom(fresh)
            return message, skipped


def read(path: str | Path) -> str:
    """The text of a prototxt file. Raises ModelError if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ModelError(f"{path} is not text: a .caffemodel is given where a prototxt belongs?") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """``; the nearest is "..."`` for the known name closest to ``name``, empty if none is close."""
    candidates = list(known)
    close = difflib.get_close_matches(name, candidates, 1, 0.6)
    close = close or [other for other in candidates if other.lower() == name.lower()][:1]
    return f'; the nearest is "{close[0]}"' if close else ""


def _explained(error: text_format.ParseError, file: str) -> SchemaError:
    message = _PREFIX.sub("", str(error), count=1).rstrip(".")
    if found := _UNKNOWN_FIELD.search(message):
        fields = _descriptor(found[1]).fields_by_name
        message = f'{found[1]} has no field "{found[2]}"{nearest(found[2], fields)}'
    elif found := _UNKNOWN_VALUE.search(message):
        values = _enum_values(found[1], found[2])
        message = f'{found[1]} has no value "{found[2]}"; it can be {", ".join(values)}'
    elif found := _REPEATED.search(message):
        message = f'{found[1]} takes one "{found[2]}", and this is the second'
    return SchemaError(message, file=file, line=error.GetLine() or 0, column=error.GetColumn() or 0)


def _descriptor(name: str) -> Descriptor:
    descriptor = caffe_pb2.DESCRIPTOR.message_types_by_name[name]
    assert isinstance(descriptor, Descriptor)
    return descriptor


def _enum_values(name: str, unknown: str) -> list[str]:
    """The values of the enums called ``name``; of many, those nearest to ``unknown``."""
    messages = caffe_pb2.DESCRIPTOR.message_types_by_name.values()
    enums = [m.enum_types_by_name[name] for m in messages if name in m.enum_types_by_name]
    enums += [e for key, e in caffe_pb2.DESCRIPTOR.enum_types_by_name.items() if key == name]
    names = list(dict.fromkeys(value for enum in enums for value in enum.values_by_name))
    close = difflib.get_close_matches(unknown.upper(), names, 3, 0.5)
    return close if len(names) > 12 and close else names


def _position(text: str, line: int, column: int) -> int:
    """Index into ``text`` of a line and column, both counted from 1."""
    return sum(len(row) for row in text.splitlines(keepends=True)[: line - 1]) + column - 1


def _without_field(text: str, start: int) -> str:
    """``text`` with the field whose name stands at ``start`` blanked: all else stays in its place."""
    end = _field_end(text, start)
    return text[:start] + re.sub(r"[^\n]", " ", text[start:end]) + text[end:]


def _field_end(text: str, start: int) -> int:
    """Where the field that begins at ``start`` ends: after its value, list or braces."""
    closing: list[str] = []
    tokens = (match for match in _TOKEN.finditer(text, start) if not match[0].startswith("#"))
    end = next(tokens).end()
    was_string = False
    for token in tokens:
        word = token[0]
        is_string = word[0] in "\"'"
        if was_string and not is_string:  # adjacent strings are one value: only now is it over
            return end
        end = token.end()
        if word in _OPENING:
            closing.append(_OPENING[word])
        elif closing and word == closing[-1]:
            closing.pop()
            if not closing:
                return end
        elif not closing and is_string:
            was_string = True
        elif not closing and word != ":":
            return end
    return end
