"""Databases of records: a LevelDB gives what an LMDB of the same records gives."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
import pytest

from sparknet.caffe import schema
from sparknet.caffe.layers.records import LevelDb, Lmdb, forever, open_records
from sparknet.caffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import Datum
from sparknet.errors import DataError

plyvel = pytest.importorskip("plyvel")


def _records(count: int) -> dict[bytes, bytes]:
    pixels = np.random.default_rng(5).integers(0, 256, (count, 3 * 8 * 8), dtype=np.uint8)
    return {
        b"%08d" % i: Datum(channels=3, height=8, width=8, label=i, data=row.tobytes()).SerializeToString()
        for i, row in enumerate(pixels)
    }


def _write_leveldb(path: Path, records: dict[bytes, bytes], *, compact: bool = False) -> str:
    database = plyvel.DB(str(path), create_if_missing=True)
    for key in reversed(records):  # it keeps them in the order of their bytes
        database.put(key, records[key])
    if compact:  # into a sorted table; else they are in the log
        database.compact_range()
    database.close()
    return str(path)


def _write_lmdb(path: Path, records: dict[bytes, bytes]) -> str:
    with lmdb.open(str(path), map_size=1 << 22) as database, database.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)
    return str(path)


def _net(source: str, backend: str) -> Net:
    setting = f'data_param {{ source: "{source}" batch_size: 7 {backend} }}'
    return Net(
        schema.parse_net(f'layer {{ name: "d" type: "Data" top: "data" top: "label" {setting} }}'),
        schema.TEST,
    )


@pytest.mark.parametrize("compact", [False, True])
def test_batches_of_a_leveldb_are_those_of_an_lmdb(compact: bool, tmp_path: Path) -> None:
    records = _records(100)
    level = _net(_write_leveldb(tmp_path / "level", records, compact=compact), "")  # the default, as in Caffe
    light = _net(_write_lmdb(tmp_path / "light", records), "backend: LMDB")
    for _ in range(20):  # once around, and on
        mine, theirs = level.forward(), light.forward()
        np.testing.assert_array_equal(mine["data"].numpy(), theirs["data"].numpy())
        np.testing.assert_array_equal(mine["label"].numpy(), theirs["label"].numpy())


def test_two_layers_of_one_process_read_one_leveldb(tmp_path: Path) -> None:
    source = _write_leveldb(tmp_path / "db", _records(3))
    first, second = (forever(open_records(source, LevelDb)) for _ in range(2))
    assert [key for key, _ in islice(first, 4)] == [b"00000000", b"00000001", b"00000002", b"00000000"]
    assert next(second)[0] == b"00000000"


def test_a_leveldb_that_was_replaced_is_read_while_the_older_one_is_open(tmp_path: Path) -> None:
    source = _write_leveldb(tmp_path / "db", {b"a": b"1"})
    older = open_records(source, LevelDb)
    (tmp_path / "db").rename(tmp_path / "old")
    _write_leveldb(tmp_path / "new", {b"b": b"2"})
    (tmp_path / "new").rename(tmp_path / "db")
    younger = open_records(source, LevelDb)
    assert [list(younger.once()), list(older.once())] == [[(b"b", b"2")], [(b"a", b"1")]]
    assert open_records(source, LevelDb) is younger


def test_a_leveldb_is_free_again_when_its_net_is_forgotten_or_could_not_read_it(tmp_path: Path) -> None:
    source = _write_leveldb(tmp_path / "db", _records(100), compact=True)
    gc.disable()
    try:
        net = _net(source, "")
        del net
        plyvel.DB(source).close()
        table = next(path for path in Path(source).iterdir() if path.suffix == ".ldb")
        table.write_bytes(table.read_bytes()[:-300] + bytes(300))
        with pytest.raises(DataError):
            _net(source, "")
        plyvel.repair_db(source)
    finally:
        gc.enable()


def test_a_database_that_becomes_empty_is_a_data_error_not_a_wait() -> None:
    class Emptied:
        def __init__(self) -> None:
            self.records = [(b"a", b"1")]

        def once(self) -> Iterator[tuple[bytes, bytes]]:
            return iter(self.records)

    database = Emptied()
    read = forever(database)
    assert next(read) == (b"a", b"1")
    database.records.clear()
    with pytest.raises(DataError, match="has become empty"):
        next(read)


def test_a_leveldb_that_is_not_there_or_is_an_lmdb_is_a_data_error_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match="it has no file CURRENT"):
        open_records(str(tmp_path / "absent"), LevelDb)
    light = _write_lmdb(tmp_path / "light", _records(1))
    with pytest.raises(DataError, match="it is an LMDB: say backend: LMDB"):
        open_records(light, LevelDb)
    assert sorted(path.name for path in Path(light).iterdir()) == ["data.mdb", "lock.mdb"]
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("kind", [Lmdb, LevelDb])
def test_an_empty_database_is_a_data_error(kind: type[Lmdb] | type[LevelDb], tmp_path: Path) -> None:
    source = (_write_lmdb if kind is Lmdb else _write_leveldb)(tmp_path / "db", {})
    with pytest.raises(DataError, match="is empty"):
        open_records(source, kind)


def test_a_damaged_table_is_a_data_error(tmp_path: Path) -> None:
    source = _write_leveldb(tmp_path / "db", _records(100), compact=True)
    table = next(path for path in Path(source).iterdir() if path.suffix == ".ldb")
    content = bytearray(table.read_bytes())
    content[200] ^= 0xFF
    table.write_bytes(content)
    with pytest.raises(DataError, match=r"cannot read .*db: Corruption"):
        list(open_records(source, LevelDb).once())


def test_a_leveldb_that_another_process_reads_is_a_data_error_that_says_so(tmp_path: Path) -> None:
    source = _write_leveldb(tmp_path / "db", _records(1))
    program = f"import plyvel; db = plyvel.DB({source!r}); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        try:
            with pytest.raises(DataError, match="LevelDB lets one process read it at a time"):
                open_records(source, LevelDb)
        finally:
            other.communicate("\n", timeout=60)


def test_without_its_package_a_leveldb_is_a_data_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = _write_leveldb(tmp_path / "db", _records(1))
    monkeypatch.setitem(sys.modules, "plyvel", None)
    with pytest.raises(DataError, match="pip install plyvel-ci"):
        open_records(source, LevelDb)
