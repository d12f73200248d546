"""Resubmission: a job that was recorded is asked for again, on a master that may know nothing of it."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from infra import program as programs
from infra.errors import UsageError
from infra.jobs.record import CHECKPOINT, FILES, REQUIREMENTS, WORK, Record
from infra.jobs.request import Request, is_elsewhere
from infra.program import Program


def request_of(record: Record, content: bytes, scratch: Path, *, env: Mapping[str, str]) -> Request:
    """What was asked for, with its files in ``scratch``, to be submitted again; ``env`` replaces and adds.

    A run that saved goes on from there. Raises UsageError for files or variables that were not kept.
    """
    if content:
        _unpack(content, scratch)
    known: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in record.request.items()
    }
    requirements = known.pop("requirements", "")
    for kind in FILES:
        known[kind] = tuple(_restored(record, scratch, kind, path) for path in known.get(kind, ()))
    if requirements:
        known["requirements"] = _there(record, scratch / REQUIREMENTS, requirements)
    program = _program(record, scratch)
    known["arguments"] = _arguments(known.get("arguments", ()), is_app=program.is_app)
    saved = {CHECKPOINT: record.checkpoint} if record.checkpoint else {}
    return Request(**{**known, "program": program, "env": {**_values(record, env), **saved, **env}})


def _unpack(content: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for info in archive.infolist():
            Path(archive.extract(info, folder)).chmod((info.external_attr >> 16) & 0o777 or 0o644)


def _values(record: Record, env: Mapping[str, str]) -> dict[str, str]:
    known = {**os.environ, **env}
    lacking = [name for name, value in record.env.items() if value is None and name not in known]
    if lacking:
        raise UsageError(
            f"{record.job} was given {', '.join(lacking)}, whose value is kept only on the machine that "
            f"submitted it; say --env {lacking[0]}=VALUE."
        )
    return {name: known[name] if value is None else value for name, value in record.env.items()}


def _arguments(words: Any, *, is_app: bool) -> tuple[str, ...]:
    """An app that was told where to save is told to go on from there."""
    given = tuple(words)
    names_a_place = any(word.partition("=")[0] == "--checkpoint" for word in given)
    return (*given, "--resume") if is_app and names_a_place and "--resume" not in given else given


def _program(record: Record, scratch: Path) -> Program:
    known = {one.name for one in fields(Program)}
    values = {name: value for name, value in record.program.items() if name in known}
    if values.get("is_app"):
        return programs.find(str(values["name"]))
    folder = scratch / WORK if record.has_files else Path(str(values["folder"]))
    if not folder.is_dir():
        raise UsageError(
            f"The project of {record.job} was too large to be kept, and {folder} is not here; submit it from "
            f"where it is, with -e {CHECKPOINT}={record.checkpoint}."
        )
    return Program(**{**values, "folder": folder, "is_alone": False})


def _there(record: Record, kept: Path, path: str) -> Path:
    found = kept if kept.is_file() else Path(path)
    if not found.is_file():
        raise UsageError(f"{path}, which {record.job} was given, was not kept, and is not here.")
    return found


def _restored(record: Record, scratch: Path, kind: str, path: str) -> str:
    return path if is_elsewhere(path) else str(_there(record, scratch / kind / Path(path).name, path))
