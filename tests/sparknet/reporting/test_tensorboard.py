"""Event files, read back by a parser of the documented format that shares nothing with the writer."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from sparknet.errors import UsageError
from sparknet.reporting.metrics import Record
from sparknet.reporting.tensorboard import Curves, crc32c
from tests.sparknet.reporting.rounds import made_round

Field = descriptor_pb2.FieldDescriptorProto


def message(name: str, **fields: tuple[int, int, str]) -> descriptor_pb2.DescriptorProto:
    described = descriptor_pb2.DescriptorProto(name=name)
    for field, (number, kind, of) in fields.items():
        label = Field.LABEL_REPEATED if field == "value" else Field.LABEL_OPTIONAL
        described.field.add(name=field, number=number, type=kind, label=label, type_name=of or None)
    return described


def event_class() -> Any:
    """TensorFlow's Event, of the fields that scalars need, with its numbers and types (event.proto)."""
    file = descriptor_pb2.FileDescriptorProto(name="oracle_event.proto", package="oracle", syntax="proto3")
    file.message_type.extend(
        [
            message("Value", tag=(1, Field.TYPE_STRING, ""), simple_value=(2, Field.TYPE_FLOAT, "")),
            message("Summary", value=(1, Field.TYPE_MESSAGE, ".oracle.Value")),
            message("SessionLog", status=(1, Field.TYPE_INT32, "")),
            message(
                "Event",
                wall_time=(1, Field.TYPE_DOUBLE, ""),
                step=(2, Field.TYPE_INT64, ""),
                file_version=(3, Field.TYPE_STRING, ""),
                summary=(5, Field.TYPE_MESSAGE, ".oracle.Summary"),
                session_log=(7, Field.TYPE_MESSAGE, ".oracle.SessionLog"),
            ),
        ]
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("oracle.Event"))


def bitwise_crc(data: bytes) -> int:
    """CRC-32C a bit at a time, from the polynomial 0x1EDC6F41 reflected."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x82F63B78 * (crc & 1)
    return ~crc & 0xFFFFFFFF


def unmasked(stored: int) -> int:
    rotated = (stored - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def events(folder: Path) -> Iterator[Any]:
    read = event_class()
    for file in sorted(folder.iterdir()):
        assert "tfevents" in file.name  # what TensorBoard looks for
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            head, body, tail = data[:12], data[12 : 12 + length], data[12 + length : 16 + length]
            assert unmasked(struct.unpack("<I", head[8:])[0]) == bitwise_crc(head[:8])
            assert unmasked(struct.unpack("<I", tail)[0]) == bitwise_crc(body)
            yield read.FromString(body)
            data = data[16 + length :]


def record(number: int, **options: Any) -> Record:
    return Record.of(made_round(number, **options), elapsed_seconds=3.0 * number)


def points(event: Any) -> dict[str, float]:
    return {value.tag: value.simple_value for value in event.summary.value}


@pytest.mark.parametrize(
    ("data", "crc"),
    [(bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E), (b"", 0)],
    ids=["zeros", "ones", "counting", "nothing"],
)
def test_the_checksum_is_that_of_the_rfc(data: bytes, crc: int) -> None:
    assert crc32c(data) == crc == bitwise_crc(data)


def test_a_round_becomes_a_point_of_every_curve(tmp_path: Path) -> None:
    with Curves(tmp_path / "new") as curves:
        curves.take(record(1))
        curves.take(record(300, accuracy=0.5))
    version, _, first, tested = events(tmp_path / "new")
    assert version.file_version == "brain.Event:2"  # the version this format has
    assert (first.step, tested.step) == (1, 300)
    assert first.wall_time > 1.7e9
    assert points(first)["train/loss"] == pytest.approx(1.85)
    assert points(first)["train/lr"] == pytest.approx(0.001)
    assert points(first)["speed/images_per_second"] == pytest.approx(2000 / 1.9)
    assert [points(first)[f"time/{name}"] for name in ("compute", "wait", "exchange", "joining")] == (
        pytest.approx([1.5, 0.5, 0.4, 0.1])
    )
    assert (points(first)["bytes/sent"], points(first)["bytes/received"]) == (24, 12)
    assert points(first)["workers/members"] == 2
    assert "test/accuracy" not in points(first)
    assert points(tested)["test/accuracy"] == pytest.approx(0.5)
    assert points(tested)["test/loss"] == pytest.approx(1.7)


def test_a_loss_that_is_not_a_number_is_shown_as_such(tmp_path: Path) -> None:
    with Curves(tmp_path) as curves:
        curves.take(record(1, losses=(math.nan, 1.0)))
    assert math.isnan(points(list(events(tmp_path))[2])["train/loss"])


def test_a_run_that_goes_on_takes_back_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    for done in (0, 4):
        with Curves(tmp_path, done=done) as curves:
            curves.take(record(done + 1))
    found = list(events(tmp_path))
    assert [(event.step, event.session_log.status) for event in found if event.HasField("session_log")] == [
        (1, 1),
        (5, 1),
    ]
    assert [event.step for event in found if event.HasField("summary")] == [1, 5]


def test_a_point_is_on_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with Curves(tmp_path) as curves:
        curves.take(record(1))
        assert len(list(events(tmp_path))) == 3


def test_a_folder_that_cannot_be_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        Curves(tmp_path / "file" / "curves")
