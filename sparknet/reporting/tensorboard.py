"""Curves for TensorBoard: an event file, written as its format is documented, without TensorFlow.

    record   length 8 bytes | masked CRC of it 4 | data | masked CRC of it 4         TFRecord, little endian
    data     Event { wall_time = 1, step = 2, file_version = 3 | summary = 5 | session_log = 7 }
    summary  Summary { value = 1 { tag = 1, simple_value = 2 } ... }                  protobuf

TensorFlow's core/lib/io/record_writer.h and core/util/event.proto are where both are laid down. The CRC is
Castagnoli's, rotated and shifted, so that data which holds its own CRC is no trap.

    tensorboard --logdir DIR
"""

from __future__ import annotations

import math
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from sparknet.errors import UsageError
from sparknet.reporting.metrics import Record


class Curves:
    """Appends a step to a new event file in ``folder``, flushed.

    It says that the run begins after round ``done``: TensorBoard then drops what earlier files of the folder
    hold of later rounds. Raises UsageError if the file cannot be made.
    """

    def __init__(self, folder: Path, *, done: int = 0) -> None:
        now = time.time()
        # TensorBoard reads the files of a folder in the order of their names
        name = f"events.out.tfevents.{now:017.6f}.{socket.gethostname()}.{os.getpid()}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / name).open("xb")
        except OSError as error:
            raise UsageError(f"{folder / name} cannot be written ({error.strerror})") from error
        self._append(_event(now, 0, _text(3, "brain.Event:2")))
        self._append(_event(now, done + 1, _bytes(7, _number(1, _START))))

    def __enter__(self) -> Curves:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def take(self, record: Record) -> None:
        """The record of a round, as a point of every curve."""
        self.write(record.round, scalars(record))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        summary = b"".join(_bytes(1, _text(1, tag) + _float(2, value)) for tag, value in values.items())
        self._append(_event(time.time(), step, _bytes(5, summary)))

    def _append(self, data: bytes) -> None:
        length = struct.pack("<Q", len(data))
        self._file.write(length + _masked_crc(length) + data + _masked_crc(data))
        self._file.flush()


def scalars(record: Record) -> dict[str, float]:
    """The curves and their values at this round; a loss that is not a number is a gap TensorBoard shows."""
    parts = ("compute", "data", "wait", "exchange", "joining")
    return {
        "train/loss": math.nan if record.loss is None else record.loss,
        "train/lr": record.lr,
        "train/tau": record.tau,
        **{f"test/{name}": math.nan if value is None else value for name, value in record.scores.items()},
        "speed/images_per_second": record.images_per_second,
        "time/seconds": record.seconds,
        **{f"time/{name}": getattr(record, f"{name}_seconds") for name in parts},
        **({"time/test": record.test_seconds} if record.scores else {}),
        "bytes/sent": record.bytes_sent,
        "bytes/received": record.bytes_received,
        "bytes/between_workers": record.bytes_between,
        "workers/members": record.workers,
        "workers/lost": len(record.lost),
    }


# -- protobuf -----------------------------------------------------------------------------------------------

_START = 1  # SessionLog.SessionStatus


def _event(wall_time: float, step: int, what: bytes) -> bytes:
    return _tag(1, 1) + struct.pack("<d", wall_time) + _number(2, step) + what


def _tag(field: int, wire_type: int) -> bytes:
    return bytes([field << 3 | wire_type])


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _number(field: int, value: int) -> bytes:
    return _tag(field, 0) + _varint(value)


def _float(field: int, value: float) -> bytes:
    return _tag(field, 5) + struct.pack("<f", value)


def _bytes(field: int, data: bytes) -> bytes:
    return _tag(field, 2) + _varint(len(data)) + data


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


# -- CRC-32C ------------------------------------------------------------------------------------------------


def _table() -> tuple[int, ...]:
    entries = list(range(256))
    for _ in range(8):
        entries = [entry >> 1 ^ (0x82F63B78 if entry & 1 else 0) for entry in entries]
    return tuple(entries)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC (RFC 3720, appendix B.4).

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
