"""Pictures of one colour each, as JPEG files, and where to put them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

from PIL import Image

COLOURS = {"n01": (200, 30, 40), "n02": (20, 180, 60), "n03": (10, 50, 220)}
LABELS = "n01 0 red thing\nn02 1 green\nn03 2 blue\n"


def jpeg(colour: tuple[int, int, int], size: tuple[int, int] = (60, 40), mode: str = "RGB") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(content, "JPEG", quality=95)
    return content.getvalue()


def named(count: int, prefix: str = "") -> dict[str, bytes]:
    """``count`` pictures of each class, by file name."""
    return {
        f"{prefix}{synset}_{number}.JPEG": jpeg(colour)
        for synset, colour in COLOURS.items()
        for number in range(count)
    }


def put_loose(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def put_zip(file: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file


def put_tar(file: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file


def put_labels(folder: Path) -> Path:
    file = folder / "labels.txt"
    file.write_text(LABELS)
    return file
