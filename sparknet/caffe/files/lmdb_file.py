"""Reading an LMDB: the records of its main database, in key order, without liblmdb.

An LMDB is a file of pages. Two meta pages at its beginning tell, for the last two transactions, which page is
the root of the tree of records; branch pages name pages below them, leaf pages hold keys and values, and a
value of more than about half a page lies on pages of its own. Numbers are little-endian.

liblmdb does not check what it maps: a damaged file can end the process by a signal, and a file can be opened
once per process only, at the size it has then. Here every page is read where it is needed, and its bounds are
checked before use; a file that has grown or was replaced is read as it is when it is opened.

Source of the format: ``libraries/liblmdb/mdb.c`` of OpenLDAP, version 0.9 (``MDB_DATA_VERSION`` 1).
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sparknet.errors import DataError

Record = tuple[bytes, bytes]

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_NONE = (1 << 64) - 1  # the root of a tree of nothing
_PAGE = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper; its pointers follow
_META = struct.Struct("<IIQQ")  # magic, version, address, size of the map; two trees follow
_TREE = struct.Struct("<IHHQQQQQ")  # pad (page size), flags, depth, pages of three kinds, entries, root
_LAST = struct.Struct("<QQ")  # last page, transaction
_NODE = struct.Struct("<HHHH")  # low and high half of a size (or page number), flags, size of the key
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 1, 2, 4, 8
_KINDS = _BRANCH | _LEAF | _OVERFLOW | _META_PAGE | 0x20 | 0x40
_BIG, _DUPLICATES = 1, 4
_PAGE_SIZES = tuple(1 << n for n in range(9, 17))
_DEEPEST = 32  # of liblmdb's own cursors


@dataclass(frozen=True)
class _Snapshot:
    """What a meta page says: the size of a page, how many there are, where the tree begins, what it holds."""

    page_size: int
    pages: int
    root: int
    entries: int
    transaction: int


class LmdbFile:
    """An LMDB open for reading, closed when the object is freed.

    Raises DataError if ``path``, a folder with a ``data.mdb`` or that file itself, is none.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        file = Path(path)
        try:
            self._file = os.open(file / "data.mdb" if file.is_dir() else file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"cannot open {path} as LMDB: {error.strerror}{_leveldb_hint(file)}") from None
        except ValueError:
            raise DataError(f"cannot open {str(path)!r} as LMDB: this is no path") from None
        self.close = weakref.finalize(self, os.close, self._file)
        self._snapshot()

    def records(self, start: bytes = b"", *, values: bool = True) -> Iterator[Record]:
        """(key, value) in key order, as they are at the last transaction that was finished by now.

        They begin with the first key that is not before ``start``; without ``values`` these are empty, and
        large ones are not read. Raises DataError if the file is damaged.
        """
        snapshot = self._snapshot()
        if snapshot.root == _NONE:
            return
        seen: set[int] = set()
        below = [snapshot.root]
        count = 0
        while below:
            number = below.pop()
            if number in seen:
                raise self._damaged(f"page {number} is in the tree twice")
            seen.add(number)
            page, flags = self._page(number, snapshot)
            if flags == _BRANCH:
                if len(below) > _DEEPEST * snapshot.page_size:
                    raise self._damaged("its tree is too deep")
                below += reversed(_from(start, list(self._branch(page, number))))
            elif flags == _LEAF:
                for record in self._leaf(page, number, snapshot, values=values):
                    count += 1
                    if record[0] >= start:
                        yield record
            else:
                raise self._damaged(f"page {number} is neither a branch nor a leaf")
        if not start and count != snapshot.entries:
            raise self._damaged(f"it has {count:,} records and says that it has {snapshot.entries:,}")

    # ---- pages

    def _snapshot(self) -> _Snapshot:
        """Of the two meta pages the younger one that is whole."""
        first = self._meta(0)
        if first is None:
            raise DataError(
                f"cannot open {self.path} as LMDB: it does not begin as one, or is cut short"
                f"{_leveldb_hint(Path(self.path))}"
            )
        second = self._meta(first.page_size)
        return max((meta for meta in (first, second) if meta), key=lambda meta: meta.transaction)

    def _meta(self, offset: int) -> _Snapshot | None:
        data = self._read(offset + _PAGE.size, _META.size + 2 * _TREE.size + _LAST.size)
        if len(data) < _META.size + 2 * _TREE.size + _LAST.size:
            return None
        magic, version, _, _ = _META.unpack_from(data)
        page_size, *_ = _TREE.unpack_from(data, _META.size)
        *_, entries, root = _TREE.unpack_from(data, _META.size + _TREE.size)
        last, transaction = _LAST.unpack_from(data, _META.size + 2 * _TREE.size)
        if magic != _MAGIC or version != _VERSION or page_size not in _PAGE_SIZES:
            return None
        return _Snapshot(page_size, last + 1, root, entries, transaction)

    def _page(self, number: int, snapshot: _Snapshot) -> tuple[bytes, int]:
        """The page of this number, and its kind."""
        if not 2 <= number < snapshot.pages:
            raise self._damaged(f"its tree leads to page {number} of {snapshot.pages}")
        page = self._read(number * snapshot.page_size, snapshot.page_size)
        if len(page) < snapshot.page_size:
            raise self._damaged(f"it is cut short before the end of page {number}")
        own, _, flags, lower, upper = _PAGE.unpack_from(page)
        if own != number:
            raise self._damaged(f"where page {number} should be is page {own}")
        if not _PAGE.size <= lower <= upper <= snapshot.page_size or lower % 2:
            raise self._damaged(f"page {number} has impossible bounds")
        return page, flags & _KINDS

    def _nodes(self, page: bytes, number: int) -> Iterator[tuple[int, int, int, int]]:
        """Offset, number of 32 bits, flags and size of the key of each node."""
        lower = _PAGE.unpack_from(page)[3]
        for (offset,) in struct.iter_unpack("<H", page[_PAGE.size : lower]):
            if offset + _NODE.size > len(page) or offset < lower:
                raise self._damaged(f"a node of page {number} lies outside of it")
            low, high, flags, key_size = _NODE.unpack_from(page, offset)
            if offset + _NODE.size + key_size > len(page):
                raise self._damaged(f"a key of page {number} reaches beyond it")
            yield offset + _NODE.size, low | high << 16, flags, key_size

    def _branch(self, page: bytes, number: int) -> Iterator[tuple[int, bytes]]:
        for start, low, flags, key_size in self._nodes(page, number):
            yield low | flags << 32, page[start : start + key_size]

    def _leaf(self, page: bytes, number: int, snapshot: _Snapshot, *, values: bool) -> Iterator[Record]:
        for start, size, flags, key_size in self._nodes(page, number):
            key, value = page[start : start + key_size], start + key_size
            if flags & _DUPLICATES:
                raise DataError(f"cannot read {self.path}: it has several values for the key {key!r}")
            if not values:
                yield key, b""
            elif flags & _BIG:
                yield key, self._big_value(page[value : value + 8], size, snapshot)
            elif value + size > len(page):
                raise self._damaged(f"a value of page {number} reaches beyond it")
            else:
                yield key, page[value : value + size]

    def _big_value(self, pointer: bytes, size: int, snapshot: _Snapshot) -> bytes:
        """A value on pages of its own, ``size`` bytes."""
        number = int.from_bytes(pointer, "little")
        pages = -(-(_PAGE.size + size) // snapshot.page_size)
        if len(pointer) < 8 or not 2 <= number <= snapshot.pages - pages:
            raise self._damaged(f"a value of {size:,} bytes is on page {number} of {snapshot.pages}")
        data = self._read(number * snapshot.page_size, _PAGE.size + size)
        if len(data) < _PAGE.size + size:
            raise self._damaged(f"it is cut short before the end of page {number + pages - 1}")
        own, _, flags, *_ = _PAGE.unpack_from(data)
        if own != number or flags & _KINDS != _OVERFLOW:
            raise self._damaged(f"page {number} does not hold the value that should be there")
        return data[_PAGE.size :]

    def _read(self, offset: int, size: int) -> bytes:
        try:
            size = min(size, os.fstat(self._file).st_size - offset)  # a damaged size takes no memory
            return os.pread(self._file, size, offset) if size > 0 else b""
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from None

    def _damaged(self, what: str) -> DataError:
        return DataError(f"cannot read {self.path} as LMDB, it is damaged: {what}")


def _from(start: bytes, children: list[tuple[int, bytes]]) -> list[int]:
    """The pages of a branch that can have keys from ``start`` on; one ends where the next begins."""
    pages = [page for page, _ in children]
    skipped = sum(first <= start for _, first in children[1:]) if start else 0
    return pages[skipped:]


def _leveldb_hint(path: Path) -> str:
    try:
        is_leveldb = (path / "CURRENT").exists()
    except (OSError, ValueError):
        return ""
    return "; it is a LevelDB: say backend: LEVELDB" if is_leveldb else ""
