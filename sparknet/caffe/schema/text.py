"""Prototxt: protobuf's text format, read with errors that say where and what was probably meant.

>>> parse('name: "n"  layer { name: "ip" typ: "InnerProduct" }', NetParameter(), file="net.prototxt")
Traceback (most recent call last):
sparknet.errors.SchemaError: net.prototxt:1:32: LayerParameter has no field "typ"; the nearest is "type"

What is a number, a name or a string is as C++ protobuf has it (see ``tokens``). Fields and values that BVLC
Caffe does not know are collected, so that one error names them all (see ``forks``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from sparknet.caffe.schema import caffe_pb2
from sparknet.caffe.schema.forks import EQUIVALENTS, UnknownField, has_no_influence, is_typo_of, refusal
from sparknet.caffe.schema.tokens import Kind, Text, Token, integer, unquoted
from sparknet.errors import ModelError, SchemaError

M = TypeVar("M", bound=Message)
_Translated = tuple[str, int, int]  # a field of BVLC Caffe, its value, and where the fork's word for it stood

_CONTROL = re.compile(r"[\x01-\x08\x0e-\x1f\x7f]")
_CLOSING = {"{": "}", "<": ">"}
_WORDS = {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}
_FLOATS = {"inf": "inf", "infinity": "inf", "nan": "nan"}
_LAYERS = frozenset({"LayerParameter", "V1LayerParameter"})
_F = FieldDescriptor
_RANGES = {
    _F.CPPTYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    _F.CPPTYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    _F.CPPTYPE_UINT32: (0, (1 << 32) - 1),
    _F.CPPTYPE_UINT64: (0, (1 << 64) - 1),
    _F.CPPTYPE_ENUM: (-(1 << 31), (1 << 31) - 1),
}


def parse(text: str, message: M, *, file: str = "") -> M:
    """Fill ``message`` from prototxt and return it.

    Raises SchemaError with file, line and column; for a misspelt name with the nearest one that is known, for
    names of Caffe's forks with all of them.
    """
    reader = _Reader(text, file, tolerant=False)
    reader.read(message)
    if reader.unknown:
        raise refusal(reader.unknown, file, reader.layer_places())
    return message


def parse_tolerantly(text: str, message: M, *, file: str = "") -> tuple[M, list[UnknownField]]:
    """As ``parse``, but leave out what the schema does not have, and say what that was.

    For nets of Caffe's forks, whose extra fields BVLC Caffe refuses. A field that says something BVLC Caffe
    can say in other words (``ceil_mode``) is put in these words; an unknown value of a field that has no
    influence (``engine``) is left out without a word. A misspelt value is an error here too.
    """
    reader = _Reader(text, file, tolerant=True)
    reader.read(message)
    if misspelt := [unknown for unknown in reader.unknown if unknown.value and is_typo_of(unknown)]:
        raise refusal(misspelt, file)
    return message, reader.unknown


def layer_places(path: str | Path) -> dict[tuple[str, str], tuple[int, int]]:
    """Line and column of each layer of a net's or a solver's file, by name and type; {} if that is none."""
    places = {}
    for message in (caffe_pb2.NetParameter(), caffe_pb2.SolverParameter()):
        try:
            reader = _Reader(read(path), str(path), tolerant=True)
            reader.read(message)
        except ModelError:
            continue
        places.update({(name, kind): (line, column) for name, kind, line, column in reader.layer_places()})
    return places


def read(path: str | Path) -> str:
    """The text of a prototxt file. Raises ModelError if it cannot be read, or is no text.

    Bytes that are not UTF-8 pass, since they may stand in comments.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:  # a zero in the path
        raise ModelError(f"cannot read {path!r}: this is no path") from None
    text = data.decode("utf-8", "surrogateescape")
    has_stray_bytes = any("\udc80" <= letter <= "\udcff" for letter in text)
    if "\0" in text or (has_stray_bytes and _CONTROL.search(text)):
        raise ModelError(f"{path} is not text: a .caffemodel is given where a prototxt belongs?")
    return text


class _Reader:
    """Reads messages from tokens, as ``TextFormat::Parser`` does."""

    def __init__(self, text: str, file: str, *, tolerant: bool) -> None:
        self.text, self.tolerant = Text(text, file), tolerant
        self.layers: list[tuple[Any, int]] = []
        self._unknown: list[tuple[Any, str, str, int, Any]] = []
        self._tokens = self.text.tokens()
        self.token = Token(Kind.END, "", 0)

    @property
    def unknown(self) -> list[UnknownField]:
        """What the schema does not have, in order; in a tolerant reading only what matters."""
        found = []
        for message, field, value, offset, layer in self._unknown:
            if self.tolerant and value and has_no_influence(message, field):
                continue
            line, column = self.text.place(offset)
            found.append(
                UnknownField(
                    message=message.DESCRIPTOR.name, field=field, value=value, layer=_name_of(layer),
                    file=self.text.file, line=line, column=column,
                )
            )  # fmt: skip
        return found

    def layer_places(self) -> list[tuple[str, str, int, int]]:
        """Name, type, line and column of each layer read; those before 2015 have no names for their types."""
        return [
            (layer.name, layer.type, *self.text.place(at))
            for layer, at in self.layers
            if isinstance(layer.type, str)
        ]

    def read(self, message: Any) -> None:
        """Fill ``message`` from the whole text."""
        try:
            self._next()
            self._read_fields(message, "", None)
        except SchemaError:
            if self._unknown and not self.tolerant:  # what follows something unknown may be misunderstood
                raise refusal(self.unknown, self.text.file, self.layer_places()) from None
            raise
        missing: list[str] = message.FindInitializationErrors()
        if missing and not self._unknown:
            raise SchemaError(f"required and not given: {', '.join(missing)}", file=self.text.file)

    # ---- fields

    def _read_fields(self, message: Any, closing: str, layer: Any) -> None:
        """Fields up to ``closing``; ``layer`` is the layer they belong to, if any."""
        translated: list[_Translated] = []
        while not (self.token.text == closing and self.token.kind in (Kind.SYMBOL, Kind.END)):
            if self.token.kind is not Kind.IDENTIFIER:
                raise self._unexpected(f'"{closing}"' if closing else "a field")
            name, start = self.token.text, self.token.start
            descriptor: Descriptor = message.DESCRIPTOR
            field = descriptor.fields_by_name.get(name)
            self._next()
            if field is None:
                self._unknown_field(message, name, start, layer, translated)
                continue
            self._read_values(message, field, layer, start)
            self._take(";") or self._take(",")
        for name, value, offset in translated:
            self._translate(message, name, value, offset)

    def _read_values(self, message: Any, field: FieldDescriptor, layer: Any, start: int) -> None:
        if field.cpp_type == _F.CPPTYPE_MESSAGE:
            self._take(":")
        else:
            self._expect(":")
        if not field.is_repeated and message.HasField(field.name):
            raise self.text.error(
                f'{message.DESCRIPTOR.name} takes one "{field.name}", and this is the second',
                self.token.start,
            )
        if not (field.is_repeated and self._take("[")):
            self._read_value(message, field, layer, start)
            return
        if self._take("]"):
            return
        self._read_value(message, field, layer, self.token.start)
        while not self._take("]"):
            self._expect(",")
            self._read_value(message, field, layer, self.token.start)

    def _read_value(self, message: Any, field: FieldDescriptor, layer: Any, start: int) -> None:
        if field.cpp_type == _F.CPPTYPE_MESSAGE:
            closing = _CLOSING.get(self.token.text)
            if closing is None or self.token.kind is not Kind.SYMBOL:
                raise self._unexpected('"{"')
            self._next()
            member = getattr(message, field.name)
            if field.is_repeated:
                member = member.add()
            else:
                member.SetInParent()
            if member.DESCRIPTOR.name in _LAYERS:
                layer = member
                self.layers.append((member, start))
            self._read_fields(member, closing, layer)
            self._expect(closing)
            return
        value = self._enum(message, field, layer) if field.enum_type else self._scalar(field)
        if value is None:
            return
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)

    # ---- values

    def _scalar(self, field: FieldDescriptor) -> Any:
        if field.cpp_type == _F.CPPTYPE_STRING:
            return self._string(field)
        if field.cpp_type == _F.CPPTYPE_BOOL:
            return self._bool(field)
        if field.cpp_type in (_F.CPPTYPE_FLOAT, _F.CPPTYPE_DOUBLE):
            return self._float()
        return self._integer(field)

    def _string(self, field: FieldDescriptor) -> str | bytes:
        start = self.token.start
        parts = []
        while self.token.kind is Kind.STRING:
            parts.append(unquoted(self.token.text))
            self._next()
        if not parts:
            raise self._unexpected("a string")
        value = b"".join(parts)
        if field.type == _F.TYPE_BYTES:
            return value
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            raise self.text.error(f"{field.name} is not UTF-8: {value!r}", start) from None

    def _bool(self, field: FieldDescriptor) -> bool:
        token = self.token
        if token.kind is Kind.INTEGER and integer(token.text) in (0, 1):
            value = bool(integer(token.text))
        elif token.kind is Kind.IDENTIFIER and token.text in _WORDS:
            value = _WORDS[token.text]
        else:
            raise self.text.error(f'{field.name} is true or false, not "{token.text}"', token.start)
        self._next()
        return value

    def _float(self) -> float:
        sign = -1.0 if self._take("-") else 1.0
        token, word = self.token, self.token.text
        if token.kind is Kind.INTEGER:
            if word[0] == "0" and len(word) > 1:
                raise self.text.error(f"a decimal number is needed here, not {word}", token.start)
        elif token.kind is Kind.FLOAT:
            word = word.rstrip("fF")
        elif token.kind is Kind.IDENTIFIER and word.lower() in _FLOATS:
            word = _FLOATS[word.lower()]
        else:
            raise self._unexpected("a number")
        self._next()
        return sign * float(word)

    def _integer(self, field: FieldDescriptor) -> int:
        start = self.token.start
        least, most = _RANGES[field.cpp_type]
        is_negative = self._take("-")
        if self.token.kind is not Kind.INTEGER:
            raise self._unexpected("a whole number")
        value = integer(self.token.text) * (-1 if is_negative else 1)
        if not least <= value <= most:
            raise self.text.error(f"Value out of range: {value} ({least} to {most})", start)
        self._next()
        return value

    def _enum(self, message: Any, field: FieldDescriptor, layer: Any) -> int | None:
        """The number of a value, or None for one that is not known, which is noted."""
        token, enum = self.token, field.enum_type
        assert enum is not None
        if token.kind is Kind.IDENTIFIER:
            self._next()
            known = enum.values_by_name.get(token.text)
            word = token.text
        elif token.kind is Kind.INTEGER or token.text == "-":
            number = self._integer(field)
            known, word = enum.values_by_number.get(number), str(number)
        else:
            raise self._unexpected(f"a value of {enum.name}")
        if known is not None:
            return int(known.number)
        self._unknown.append((message, field.name, word, token.start, layer))
        return None

    # ---- what the schema does not have

    def _unknown_field(
        self,
        message: Any,
        name: str,
        start: int,
        layer: Any,
        translated: list[tuple[str, int, int]],
    ) -> None:
        key = (message.DESCRIPTOR.name, name)
        if self.tolerant and key in EQUIVALENTS:
            self._expect(":")
            field = EQUIVALENTS[key]
            value = self._bool_or_integer()
            if (found := field.values.get(value, value if field.takes_any else None)) is None:
                raise self.text.error(f"{name} cannot be {value}", start)
            translated.append((field.name, found, start))
        else:
            self._unknown.append((message, name, "", start, layer))
            self._skip()
        self._take(";") or self._take(",")

    def _bool_or_integer(self) -> int:
        token = self.token
        if token.kind is Kind.IDENTIFIER and token.text in _WORDS:
            self._next()
            return int(_WORDS[token.text])
        if token.kind is not Kind.INTEGER:
            raise self._unexpected("true, false or a whole number")
        self._next()
        return integer(token.text)

    def _translate(self, message: Any, name: str, value: int, offset: int) -> None:
        if message.DESCRIPTOR.fields_by_name[name].is_repeated:
            getattr(message, name).append(value)
        elif message.HasField(name) and getattr(message, name) != value:
            raise self.text.error(f"this contradicts {name}, which is given as well: keep one", offset)
        else:
            setattr(message, name, value)

    def _skip(self) -> None:
        """Pass over the value of a field: scalars, a list, or everything in its braces."""
        self._take(":")
        first = self.token
        if first.kind is Kind.STRING:
            while self.token.kind is Kind.STRING:
                self._next()
            return
        if first.text not in ("{", "<", "["):
            self._take("-")
            if self.token.kind not in (Kind.IDENTIFIER, Kind.INTEGER, Kind.FLOAT):
                raise self._unexpected("a value")
            self._next()
            return
        closings: list[str] = []
        while True:
            token = self.token
            if token.kind is Kind.END:
                raise self._unexpected(f'"{closings[-1]}"')
            if token.kind is Kind.SYMBOL and token.text in "{<[":
                closings.append({"[": "]", **_CLOSING}[token.text])
            elif token.kind is Kind.SYMBOL and token.text in "}>]" and token.text != closings.pop():
                raise self.text.error(f'"{token.text}" closes nothing', token.start)
            self._next()
            if not closings:
                return

    # ---- tokens

    def _next(self) -> None:
        self.token = next(self._tokens)

    def _take(self, symbol: str) -> bool:
        """Whether the next token is ``symbol``, which then is passed."""
        if self.token.kind is Kind.SYMBOL and self.token.text == symbol:
            self._next()
            return True
        return False

    def _expect(self, symbol: str) -> None:
        if not self._take(symbol):
            raise self._unexpected(f'"{symbol}"')

    def _unexpected(self, wanted: str) -> SchemaError:
        found = f'"{self.token.text}"' if self.token.text else "the text ends"
        return self.text.error(f"Expected {wanted}, and here {found}", self.token.start)


def _name_of(layer: Any) -> str:
    """The name of a layer, which in those of 2013 stands in a message of its own."""
    if layer is None:
        return ""
    name = layer.name or (layer.layer.name if layer.DESCRIPTOR.name == "V1LayerParameter" else "")
    return str(name)
