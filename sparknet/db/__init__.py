"""Databases of pictures, made of any source: LMDB, LevelDB, HDF5, tar shards, Parquet, folders."""

from sparknet.db.create import FORMATS, Created, create
from sparknet.db.info import Info, info
from sparknet.db.records import ENCODINGS, Making

__all__ = ["ENCODINGS", "FORMATS", "Created", "Info", "Making", "create", "info"]
