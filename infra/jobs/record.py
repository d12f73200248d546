"""Record: what was asked for with a job, kept where it outlives the master: there is no other way back to it.

    ~/.sparknet-ec2/jobs/REGION/CLUSTER/JOB.json, JOB.zip      on the machine that submitted
    s3://BUCKET/sparknet/REGION/CLUSTER/JOB/record.json, files.zip, and what the job saves, in run-1/ ...

The files are the project and whatever options named, as they travelled. Values of variables that may be
secrets are kept on the machine alone.
"""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.cloud import Cloud
from infra.ec2 import buckets, network, tags
from infra.errors import InfraError, JobError
from infra.jobs.project import Project
from infra.jobs.request import Request, is_elsewhere

FOLDER = "jobs"
CHECKPOINT = "SPARKNET_CHECKPOINT"  # where a run saves that names no place (sparknet/trainer/resuming.py)
MOST_BYTES = 64 << 20  # of files that are kept
SECRET = re.compile(r"SECRET|TOKEN|PASSW|CREDENTIAL|PRIVATE|(_|^)KEY(_|$)|ACCESS_KEY", re.IGNORECASE)
WORK, REQUIREMENTS = "work", "requirements.txt"
FILES = ("py_files", "files", "jars")
_AS_THEY_ARE = ("arguments", "name", "packages", "conf", "driver_memory", "executor_memory", "workers")


@dataclass(frozen=True, kw_only=True)
class Record:
    """A job: where it was, what was asked for, and where it saves; ``has_files``: they are kept, too.

    ``env``: None for a value that is not kept here. ``ended``: how, once somebody saw it end.
    """

    job: str
    cluster: str
    region: str
    submitted: str  # ISO 8601
    program: Mapping[str, Any]
    request: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str | None] = field(default_factory=dict)
    bucket: str = ""
    checkpoint: str = ""
    has_files: bool = True
    goes_on_from: str = ""  # the job whose place it goes on at
    ended: str = ""


def place(region: str, cluster: str, job: str, bucket: str) -> str:
    """Where a job saves that names no place; empty without a bucket."""
    return f"s3://{bucket}/{_prefix(region, cluster, job)}" if bucket else ""


def keep(cloud: Cloud, record: Record, request: Request, project: Project) -> str:
    """Keep the record of a job that has been started; a sentence where that did not work everywhere."""
    content, problems = b"", list[str]()
    try:
        content = _packed(request, project) if record.has_files else b""
    except OSError as error:  # the job has its copy; a file may have gone meanwhile
        problems.append(f"{error.filename}: {error.strerror}")
    folder = cloud.home / FOLDER / record.region / record.cluster
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _write(folder / f"{record.job}.json", _as_json(record))
        _write(folder / f"{record.job}.zip", content)
    except OSError as error:
        problems.append(f"{folder}: {error.strerror}")
    if record.bucket:
        shared = replace(record, env={name: _shared(name, value) for name, value in record.env.items()})
        prefix = _prefix(record.region, record.cluster, record.job)
        try:
            buckets.put(cloud.region, record.bucket, f"{prefix}/files.zip", content)
            buckets.put(cloud.region, record.bucket, f"{prefix}/record.json", _as_json(shared))
        except InfraError as error:
            problems.append(f"s3://{record.bucket}: {error}")
    return f"{record.job} could not be recorded for resubmit ({'; '.join(problems)})." if problems else ""


def of(
    cloud: Cloud, cluster: str, job: str, request: Request, project: Project, *, bucket: str, origin: str = ""
) -> Record:
    """The record of a job that starts now."""
    sizes = [project.size, *(Path(path).stat().st_size for path in _local(request))]
    return Record(
        job=job,
        cluster=cluster,
        region=cloud.region.name,
        submitted=datetime.now(UTC).isoformat(timespec="seconds"),
        program={**asdict(request.program), "folder": str(request.program.folder)},
        request={name: getattr(request, name) for name in (*_AS_THEY_ARE, *FILES)}
        | {"requirements": str(request.requirements) if request.requirements else ""},
        env=dict(request.env),
        bucket=bucket,
        checkpoint=request.env.get(CHECKPOINT, "") or place(cloud.region.name, cluster, job, bucket),
        has_files=sum(sizes) <= MOST_BYTES,
        goes_on_from=origin,
    )


def note_end(home: Path, region: str, cluster: str, job: str, ended: str) -> None:
    """Note how a job ended, where this machine has its record."""
    file = home / FOLDER / region / cluster / f"{job}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        _write(file, _as_json(replace(_read(file.read_bytes()), ended=ended)))


def known(home: Path) -> list[Record]:
    """The jobs that were submitted from this machine, the oldest first."""
    found = []
    for file in (home / FOLDER).glob("*/*/*.json"):
        with suppress(OSError, ValueError, TypeError, KeyError):  # of another version
            found.append(_read(file.read_bytes()))
    return sorted(found, key=lambda one: (one.submitted, one.job))


def find(cloud: Cloud, job: str, *, bucket: str = "") -> tuple[Record, bytes]:
    """The newest record of that job, or of the program of that name, and its files.

    On this machine, or else in ``bucket``. Raises JobError.
    """
    word = job.removesuffix(".py")
    mine = [one for one in known(cloud.home) if word in (one.job, one.program.get("name"), job)]
    if mine:
        one = mine[-1]
        file = cloud.home / FOLDER / one.region / one.cluster / f"{one.job}.zip"
        return one, file.read_bytes() if file.is_file() else b""
    for key in reversed(buckets.keys(cloud.region, bucket, "sparknet/") if bucket else []):
        if key.endswith(f"/{job}/record.json"):
            record = _read(buckets.get(cloud.region, bucket, key) or b"")
            return record, buckets.get(cloud.region, bucket, key.replace("record.json", "files.zip")) or b""
    where = f", nor in s3://{bucket}" if bucket else "; --bucket names the bucket of its cluster"
    raise JobError(
        f"No job {job} was submitted from this machine that is still known{where}. What is known: "
        f"{', '.join(one.job for one in known(cloud.home)[-5:]) or 'none'}."
    )


def _packed(request: Request, project: Project) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in project.items:
            archive.write(item.file, f"{WORK}/{item.path}")
        for kind in FILES:
            for path in getattr(request, kind):
                if not is_elsewhere(path):
                    archive.write(path, f"{kind}/{Path(path).name}")
        if request.requirements:
            archive.write(request.requirements, REQUIREMENTS)
    return target.getvalue()


def _local(request: Request) -> Iterator[str]:
    for kind in FILES:
        yield from (path for path in getattr(request, kind) if not is_elsewhere(path))
    if request.requirements:
        yield str(request.requirements)


def _shared(name: str, value: str | None) -> str | None:
    return None if SECRET.search(name) else value


def _prefix(region: str, cluster: str, job: str) -> str:
    return f"sparknet/{region}/{cluster}/{job}"


def _as_json(record: Record) -> bytes:
    return json.dumps(asdict(record), indent=1).encode()


def _read(text: bytes) -> Record:
    names = {one.name for one in fields(Record)}
    return Record(**{name: value for name, value in json.loads(text).items() if name in names})


def _write(file: Path, data: bytes) -> None:
    new = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    new.replace(file)


def bucket_of(cloud: Cloud, cluster: str) -> str:
    """The bucket of a cluster; empty if it has none."""
    group = network.find_group(cloud.region, cluster)
    return group.tags.get(tags.BUCKET, "") if group else ""
