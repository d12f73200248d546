"""A drawn set of ten classes in exactly the layout of CIFAR-10, for when there is no real one.

Each class is a shape (disc, ring, square, diamond, triangle, cross, checks, bars lying, standing, slanting)
in a random colour on a random ground, of random size, place and tilt, with uneven light and noise. Colour
says next to nothing about the class, so a net has to learn the shapes: not trivial, yet a short run of
cifar10_quick gets most of them right. The same seed draws the same bytes.

Accuracy on it says that training works. It says nothing about photographs: label it wherever it is shown.
"""

# mypy: disable-error-code=no-any-return
# (NumPy types its ufuncs as Any)
from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sparknet.data.dataset import Bytes, Dataset, Examples
from sparknet.errors import UsageError

Plane = NDArray[np.float32]

TRAIN_RECORDS, TEST_RECORDS = 10_000, 2_000
NOISE = 0.13  # standard deviation, full scale 1
CONTRAST = 0.2  # the least distance of shape and ground in each channel, full scale 1
EDGE = 0.08  # softness of an outline, in half-widths of the picture


def draw(
    *,
    seed: int = 0,
    train: int = TRAIN_RECORDS,
    test: int = TEST_RECORDS,
    channels: int = 3,
    side: int = 32,
) -> Dataset:
    """A set of ``train`` + ``test`` pictures, uint8 (channels, side, side), each class equally frequent.

    ``channels=1, side=28`` gives the shape of MNIST. Raises UsageError for sizes below one.
    """
    if min(train, test, channels, side) < 1:
        raise UsageError("a drawn set needs at least one picture, channel and pixel")
    rng = np.random.default_rng([seed, channels, side])
    return Dataset(
        name="synthetic shapes",
        train=_draw(train, channels, side, rng),
        test=_draw(test, channels, side, rng),
        classes=CLASSES,
        synthetic=True,
    )


def _draw(count: int, channels: int, side: int, rng: np.random.Generator) -> Examples:
    labels = rng.permutation(np.arange(count, dtype=np.int64) % len(CLASSES))
    masks = _masks(labels, side, rng)
    return Examples(_paint(masks, channels, rng), labels)


def _masks(labels: NDArray[np.int64], side: int, rng: np.random.Generator) -> Plane:
    """How much of each pixel belongs to the shape, 0 to 1: (n, side, side)."""
    x, y = _coordinates(len(labels), side, rng)
    masks = np.empty_like(x)
    for label, outline in enumerate(SHAPES.values()):
        mine = labels == label
        masks[mine] = _soft(outline(x[mine], y[mine]))
    return masks


def _coordinates(count: int, side: int, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Each pixel's place in a shape's own frame, which is moved, scaled and tilted: a shape fills -1 to 1."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    across, down, size, tilt = (
        rng.uniform(low, high, (count, 1, 1)).astype(np.float32)
        for low, high in ((-0.35, 0.35), (-0.35, 0.35), (0.35, 0.75), (-0.35, 0.35))
    )
    x, y = (axis[None, None, :] - across) / size, (axis[None, :, None] - down) / size
    return np.cos(tilt) * x + np.sin(tilt) * y, np.cos(tilt) * y - np.sin(tilt) * x


def _soft(outline: Plane) -> Plane:
    """1 inside, 0 outside, a ramp between: ``outline`` is negative inside."""
    soft: Plane = np.clip(0.5 - outline / np.float32(EDGE), 0, 1)
    return soft


def _paint(masks: Plane, channels: int, rng: np.random.Generator) -> Bytes:
    """Shape and ground in two colours, light from one side, and noise: uint8 (n, channels, side, side)."""
    count, side, _ = masks.shape
    ground, shape = _colours(count, channels, rng)
    pictures = ground + (shape - ground) * masks[:, None]
    pictures += _light(count, side, rng)[:, None]
    pictures += rng.standard_normal(pictures.shape, np.float32) * np.float32(NOISE)
    pictures *= 255
    return pictures.clip(0, 255).astype(np.uint8)


def _colours(count: int, channels: int, rng: np.random.Generator) -> tuple[Plane, Plane]:
    """Two colours a picture, (n, channels, 1, 1) each, at least CONTRAST apart in every channel."""
    ground = rng.uniform(0.15, 0.85, (count, channels, 1, 1)).astype(np.float32)
    step = rng.uniform(CONTRAST, 0.5, ground.shape).astype(np.float32)
    # away from the nearer end of the scale, so that the shape keeps its contrast
    return ground, np.where(ground < 0.5, ground + step, ground - step)


def _light(count: int, side: int, rng: np.random.Generator) -> Plane:
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    across, down = rng.uniform(-0.15, 0.15, (2, count, 1, 1)).astype(np.float32)
    return across * axis[None, None, :] + down * axis[None, :, None]


def _disc(x: Plane, y: Plane) -> Plane:
    # through the root and not hypot, which is several times slower
    radius: Plane = np.sqrt(x * x + y * y)
    return radius - 1


def _ring(x: Plane, y: Plane) -> Plane:
    return np.abs(_disc(x, y) + np.float32(0.25)) - np.float32(0.25)


def _square(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.9)


def _diamond(x: Plane, y: Plane) -> Plane:
    return np.abs(x) + np.abs(y) - np.float32(1.1)


def _triangle(x: Plane, y: Plane) -> Plane:
    return np.maximum(np.abs(x) * 2 - (y + 1), y - np.float32(0.9))


def _cross(x: Plane, y: Plane) -> Plane:
    arms = np.minimum(np.abs(x), np.abs(y)) - np.float32(0.3)
    return np.maximum(arms, np.maximum(np.abs(x), np.abs(y)) - 1)


def _bars(along: Plane) -> Plane:
    return -np.sin(along * np.float32(1.5 * np.pi)) * np.float32(0.3)


def _lying_bars(x: Plane, y: Plane) -> Plane:
    return np.maximum(_bars(y), _disc(x, y) - np.float32(0.2))


def _standing_bars(x: Plane, y: Plane) -> Plane:
    return np.maximum(_bars(x), _disc(x, y) - np.float32(0.2))


def _slanting_bars(x: Plane, y: Plane) -> Plane:
    return np.maximum(_bars((x + y) * np.float32(0.7)), _disc(x, y) - np.float32(0.2))


def _checks(x: Plane, y: Plane) -> Plane:
    waves = -np.sin(x * np.float32(1.5 * np.pi)) * np.sin(y * np.float32(1.5 * np.pi)) * np.float32(0.3)
    return np.maximum(waves, _disc(x, y) - np.float32(0.2))


SHAPES: dict[str, Callable[[Plane, Plane], Plane]] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "diamond": _diamond,
    "triangle": _triangle,
    "cross": _cross,
    "lying bars": _lying_bars,
    "standing bars": _standing_bars,
    "slanting bars": _slanting_bars,
    "checks": _checks,
}
CLASSES = tuple(SHAPES)
