"""Photographs decoded and resized, pictures a second of one core: Pillow's usual loop, and ours.

    ./run bench decode --args "--photographs imagenet-sample.zip"

The loop is Image.open(file).convert("RGB").resize((side, side)), with the resampling that resize has by
default (bicubic), to an array. Both decode the same bytes in memory in one process, turn and turn about; the
least processor time of the repeats counts. How far the pixels are from Pillow's is said in levels of 0 to
255. The same is done with every photograph enlarged fourfold, where decoding at a smaller scale pays.
"""

from __future__ import annotations

import argparse
import io
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
from PIL import Image

from sparknet.data.dataset import Bytes
from sparknet.data.decoding import Decoding, decode

GOAL = 2.0
PHOTOGRAPHS = Path("../shared/data/imagenet-sample.zip")
Decoder = Callable[[bytes], Bytes]


def pillow(side: int) -> Decoder:
    """(side, side, 3)."""

    def loop(data: bytes) -> Bytes:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB").resize((side, side)))

    return loop


def ours(side: int) -> Decoder:
    """(3, side, side), as it is trained on."""
    how = Decoding(size=(side, side))
    return lambda data: decode(data, "a photograph", how)


def read(source: Path, count: int) -> list[bytes]:
    """The JPEG files of a folder or a zip archive, by name."""
    if source.is_dir():
        files = sorted(file for file in source.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
        return [file.read_bytes() for file in files[:count]]
    with zipfile.ZipFile(source) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg")))
        return [archive.read(name) for name in names[:count]]


def enlarged(data: bytes, factor: int) -> bytes:
    content = io.BytesIO()
    with Image.open(io.BytesIO(data)) as image:
        larger = image.convert("RGB").resize((image.width * factor, image.height * factor))
    larger.save(content, "JPEG", quality=90)
    return content.getvalue()


def rates(photographs: Sequence[bytes], decoders: Sequence[Decoder], repeats: int) -> list[float]:
    """Pictures a second of processor time of each, the best of the repeats."""
    least = [float("inf")] * len(decoders)
    for _ in range(repeats):
        for k, decoder in enumerate(decoders):
            start = time.process_time()
            for data in photographs:
                decoder(data)
            least[k] = min(least[k], time.process_time() - start)
    return [len(photographs) / seconds for seconds in least]


def differences(photographs: Sequence[bytes], side: int) -> tuple[float, float]:
    """How far our pixels are from Pillow's: the mean, and the 99th percentile."""
    one, other = pillow(side), ours(side)
    away = [np.abs(one(data).transpose(2, 0, 1).astype(int) - other(data)) for data in photographs]
    counts = np.sum([np.bincount(a.ravel(), minlength=256) for a in away], axis=0)
    shares = counts.cumsum() / counts.sum()
    return float((counts * np.arange(256)).sum() / counts.sum()), float(np.searchsorted(shares, 0.99))


def measure(name: str, photographs: Sequence[bytes], side: int, repeats: int) -> None:
    theirs, mine = rates(photographs, (pillow(side), ours(side)), repeats)
    mean, tail = differences(photographs[:200], side)
    met = "met" if mine >= GOAL * theirs else "MISSED"
    click.echo(
        f"{name:<20} Pillow {theirs:7,.0f}/s   ours {mine:7,.0f}/s   {mine / theirs:5.2f} times "
        f"(goal {GOAL:g}: {met})   pixels differ by {mean:.2f} levels, 99 % by {tail:g} at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS, help="a folder or zip of JPEG files")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--enlarged", type=int, default=100, help="so many of them fourfold")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    photographs = read(options.photographs, options.count)
    click.echo(f"{len(photographs):,} photographs to {options.side} x {options.side}, by processor time")
    measure("as they are", photographs, options.side, options.repeats)
    larger = [enlarged(data, 4) for data in photographs[: options.enlarged]]
    measure("enlarged fourfold", larger, options.side, options.repeats)


if __name__ == "__main__":
    main()
