"""LMDBs as liblmdb writes them: read without it, record by record, and refused where they are damaged."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from random import Random

import lmdb
import pytest

from sparknet.caffe import schema
from sparknet.caffe.files.lmdb_file import LmdbFile
from sparknet.caffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import Datum
from sparknet.errors import DataError

VALUE_SIZES = (0, 1, 100, 2000, 2040, 5000, 30000)  # the last two lie on pages of their own


def written(path: Path, records: dict[bytes, bytes]) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    with lmdb.open(str(path), map_size=1 << 26) as database, database.begin(write=True) as transaction:
        for key, value in records.items():
            transaction.put(key, value)
    return path


def some_records(count: int) -> dict[bytes, bytes]:
    random = Random(count)
    return {b"%08d" % i: random.randbytes(random.choice((10, 300, 5000))) for i in range(count)}


@pytest.mark.parametrize("seed", range(12))
def test_the_records_are_those_that_liblmdb_reads(seed: int, tmp_path: Path) -> None:
    """After any number of transactions that add, change and remove."""
    random, expected = Random(seed), dict[bytes, bytes]()
    with lmdb.open(str(tmp_path), map_size=1 << 26) as database:
        for _ in range(random.choice((0, 1, 5, 30))):
            with database.begin(write=True) as transaction:
                for _ in range(random.choice((1, 10, 200))):
                    if expected and random.random() < 0.3:
                        key = random.choice(list(expected))
                        transaction.delete(key)
                        del expected[key]
                    else:
                        key = random.randbytes(random.choice((1, 8, 100, 511)))
                        expected[key] = random.randbytes(random.choice(VALUE_SIZES))
                        transaction.put(key, expected[key])
        with database.begin() as transaction:
            assert (
                list(LmdbFile(tmp_path).records()) == list(transaction.cursor()) == sorted(expected.items())
            )


def test_a_database_may_be_a_file_by_itself(tmp_path: Path) -> None:
    file = written(tmp_path / "db", {b"a": b"1"}) / "data.mdb"
    assert list(LmdbFile(file).records()) == [(b"a", b"1")]


def test_a_database_that_has_grown_is_read_as_it_is(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), map_size=1 << 20) as database:
        with database.begin(write=True) as transaction:
            transaction.put(b"a", b"1")
        opened = LmdbFile(tmp_path)
        assert len(list(opened.records())) == 1
        database.set_mapsize(1 << 26)
        with database.begin(write=True) as transaction:
            for i in range(200):
                transaction.put(b"b%03d" % i, bytes(20000))
    assert len(list(LmdbFile(tmp_path).records())) == len(list(opened.records())) == 201


def test_a_net_reads_the_database_that_is_there_when_it_is_made(tmp_path: Path) -> None:
    """Whether the one that an older net reads was rewritten in place, or replaced by another."""

    def labels(first: int, count: int) -> dict[bytes, bytes]:
        return {
            b"%d" % i: Datum(channels=1, height=1, width=1, data=b"x", label=first + i).SerializeToString()
            for i in range(count)
        }

    def net() -> Net:
        setting = f'data_param {{ source: "{tmp_path}/db" batch_size: 3 backend: LMDB }}'
        text = f'layer {{ name: "d" type: "Data" top: "data" top: "label" {setting} }}'
        return Net(schema.parse_net(text), schema.TEST)

    written(tmp_path / "db", labels(0, 3))
    older = net()
    assert older.forward()["label"].tolist() == [0, 1, 2]
    written(tmp_path / "db", labels(10, 2))
    younger = net()
    assert younger.forward()["label"].tolist() == [10, 11, 10]
    assert older.forward()["label"].tolist() == [0, 1, 2]
    with lmdb.open(f"{tmp_path}/db") as database, database.begin(write=True) as transaction:
        transaction.put(b"2", labels(10, 3)[b"2"])
    assert net().forward()["label"].tolist() == [10, 11, 12]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin as one"),
        (b"no database" * 9999, "does not begin as one"),
        (bytes(16) + struct.pack("<II", 0xBEEFC0DE, 999) + bytes(9000), "does not begin as one"),
    ],
)
def test_what_is_no_lmdb_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(content)
    with pytest.raises(DataError, match=f"{tmp_path} as LMDB: it {message}"):
        LmdbFile(tmp_path)


def test_a_database_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot open .*absent as LMDB: No such file"):
        LmdbFile(tmp_path / "absent")
    with pytest.raises(DataError, match="this is no path"):
        LmdbFile("a\0b")
    (tmp_path / "CURRENT").touch()
    with pytest.raises(DataError, match="it is a LevelDB: say backend: LEVELDB"):
        LmdbFile(tmp_path)


def test_several_values_of_one_key_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path / "db", {b"k": b"1"}) / "data.mdb"
    data = bytearray(file.read_bytes())
    page = max(at for at in range(0, len(data), 4096) if data[at + 10] == 2)  # the leaf
    (node,) = struct.unpack_from("<H", data, page + 16)
    data[page + node + 4] = 4  # MDB_DUPSORT's mark
    file.write_bytes(data)
    with pytest.raises(DataError, match="several values for the key b'k'"):
        list(LmdbFile(file).records())


@pytest.mark.timeout(60)
def test_a_damaged_database_is_read_or_refused(tmp_path: Path) -> None:
    """liblmdb ends the process on many of these by a signal."""
    records = some_records(300)
    whole = (written(tmp_path / "db", records) / "data.mdb").read_bytes()
    damaged, well = tmp_path / "damaged.mdb", 0
    for seed in range(400):
        random, data = Random(seed), bytearray(whole)
        if random.random() < 0.2:
            del data[random.randrange(len(data)) :]
        for _ in range(random.choice((1, 5, 50)) if len(data) == len(whole) else 0):
            page = random.randrange(len(data) // 4096) * 4096
            place = page + random.randrange(random.choice((32, 200, 4096)))
            data[place] = random.choice((0, 255, random.randrange(256)))
        damaged.write_bytes(data)
        try:
            found = list(LmdbFile(damaged).records())
        except DataError:
            continue
        well += 1
        assert len(found) in (len(records), 0), seed
    assert 50 < well < 350


@pytest.mark.parametrize("pages", [2, 3, 5, 50])
def test_a_database_that_is_cut_short_is_refused(pages: int, tmp_path: Path) -> None:
    file = written(tmp_path / "db", some_records(300)) / "data.mdb"
    file.write_bytes(file.read_bytes()[: pages * 4096 - 1])
    with pytest.raises(DataError, match=r"cut short|is damaged"):
        list(LmdbFile(file).records())


@pytest.mark.parametrize("count", [3, 300, 3000])
def test_the_records_from_a_key_on_are_those_that_are_not_before_it(count: int, tmp_path: Path) -> None:
    records = some_records(count)
    file = LmdbFile(written(tmp_path / "db", records))
    keys = sorted(records)
    for start in (*Random(3).sample(keys, 3), keys[0], keys[-1], keys[count // 2] + b"x", b"\xff", b"\0"):
        assert list(file.records(start)) == [(key, records[key]) for key in keys if key >= start]
    assert [key for key, _ in file.records(values=False)] == keys
