"""Columns of a DataFrame by the names that users write: ``age``, ``Age``, ``a.b`` whole or inside a struct.

Names are looked up in the schema. Asking Spark would log a page of Java for each that is not there, and a dot
in a name would be taken for a struct.

    found = find(frame.schema, "size.height")
    found.field.dataType, F.col(found.reference)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyspark.sql.types import StructField, StructType

from sparknet.errors import DataError


class Found(NamedTuple):
    """A column or a field of one; ``reference`` is its name as Spark's ``col`` takes it."""

    field: StructField
    reference: str


def find(schema: StructType, name: str, where: str = "the DataFrame") -> Found:
    """The column ``name``, in whatever case, or the field of a struct. Raises DataError if there is none, or
    more than one.
    """
    bare = name[1:-1].replace("``", "`") if len(name) > 2 and name[0] == name[-1] == "`" else name
    found = _in_struct(schema, bare, where) or _along(schema, name.split("."), where)
    if found is None:
        raise DataError(f"there is no column {name} in {where}, which has {some(schema.names)}")
    return found


def some(names: Sequence[str], count: int = 20) -> str:
    """The first of some names, for a message."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _along(schema: StructType, path: Sequence[str], where: str) -> Found | None:
    """The field at the end of ``path``, each but the last of which is a struct."""
    found = _in_struct(schema, path[0], where)
    if found is None or len(path) == 1 or not isinstance(found.field.dataType, StructType):
        return found if len(path) == 1 else None
    inner = _along(found.field.dataType, path[1:], where)
    return inner and Found(inner.field, f"{found.reference}.{inner.reference}")


def _in_struct(schema: StructType, name: str, where: str) -> Found | None:
    alike = [field for field in schema if field.name.lower() == name.lower()]
    exact = [field for field in alike if field.name == name] or alike
    if len(exact) > 1:
        raise DataError(f"{where} has {len(exact)} columns {name}: rename one of them, as with toDF(...)")
    return Found(exact[0], _quoted(exact[0].name)) if exact else None


def _quoted(name: str) -> str:
    return name if name.isidentifier() else "`" + name.replace("`", "``") + "`"
