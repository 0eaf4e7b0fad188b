"""Canny's edges (1986), as scikit-image finds them and as OpenCV does."""

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from bnnlib.data.corruptions.pixels import Generators
from bnnlib.data.npz import Array

# OpenCV's tangents of 22.5° and 67.5°, in units of 2^-15.
TANGENT_22 = 13573
TANGENT_67 = TANGENT_22 + (2 << 15)


def canny_edges(images: Array, thresholds: tuple[float, float], rngs: Generators) -> Array:
    """The edges alone, 0 or 1, by scikit-image's `canny` with its default blur of one pixel.

    Args:
        images: `(n, height, width, channels)`, 0..1; each channel has its own edges.
        thresholds: Of the gradient by Sobel: pixels above the lower one are edges where they touch
            pixels above the higher one.
        rngs: Not used.
    """
    channels = [_canny(images[..., channel], *thresholds) for channel in range(images.shape[3])]
    return np.stack(channels, axis=-1).astype(np.float32)


def _canny(images: Array, low: float, high: float) -> Array:
    height, width = images.shape[1:]
    covered = _blur(np.ones((1, height, width)))
    blurred = _blur(images.astype(np.float64)) / (covered + np.finfo(np.float64).eps)
    down, right = _sobel(blurred, "reflect")
    strength = np.hypot(down, right)
    # The gradient points between a straight and a diagonal neighbour: take the value between.
    steep = np.abs(down) >= np.abs(right)
    longer = np.maximum(np.abs(down), np.abs(right))
    share = np.minimum(np.abs(down), np.abs(right)) / np.where(longer > 0, longer, 1)
    one_way = down * right >= 0
    near = _neighbours(strength)

    def along(sign: int) -> Array:
        straight = np.where(steep, near(sign, 0), near(0, sign))
        against = np.where(steep, near(sign, -sign), near(-sign, sign))
        diagonal = np.where(one_way, near(sign, sign), against)
        return diagonal * share + straight * (1 - share)

    peaks = (along(1) <= strength) & (along(-1) <= strength) & (strength > 0)
    peaks[:, [0, -1]] = peaks[:, :, [0, -1]] = False  # the border has no gradient of its own
    return _connected(peaks & (strength >= low), peaks & (strength >= high))


def canny_of_bytes(images: Array, low: int, high: int) -> Array:
    """Edges by OpenCV's `Canny` of uint8 images, without a blur.

    Args:
        images: uint8 `(n, height, width)`.
        low: Threshold of the gradient's sum of absolute components.
        high: The same of pixels that edges start from.

    Returns:
        bool, the same shape.
    """
    down, right = _sobel(images.astype(np.int64), "nearest")
    strength = np.abs(down) + np.abs(right)
    near = _neighbours(strength)
    height, width = np.abs(down) << 15, np.abs(right)
    flat, steep = height < width * TANGENT_22, height > width * TANGENT_67
    opposite = (down ^ right) < 0
    before = np.where(opposite, near(-1, 1), near(-1, -1))
    after = np.where(opposite, near(1, -1), near(1, 1))
    peaks = np.where(
        flat,
        (strength > near(0, -1)) & (strength >= near(0, 1)),
        np.where(
            steep,
            (strength > near(-1, 0)) & (strength >= near(1, 0)),
            (strength > before) & (strength > after),
        ),
    )
    return _connected(peaks & (strength > low), peaks & (strength > high))


def _blur(images: Array) -> Array:
    return ndimage.gaussian_filter(images, (0, 1, 1), mode="constant")


def _sobel(images: Array, border: str) -> tuple[Array, Array]:
    """Sobel's gradient of images `(n, height, width)`: downwards, to the right."""
    slope, mean = [-1, 0, 1], [1, 2, 1]

    def by_axes(rows: list[int], columns: list[int]) -> Array:
        along = ndimage.correlate1d(images, rows, axis=1, mode=border)
        return ndimage.correlate1d(along, columns, axis=2, mode=border)

    return by_axes(slope, mean), by_axes(mean, slope)


def _neighbours(images: Array) -> Callable[[int, int], Array]:
    """A function of rows down and columns right that gives the values there, 0 outside."""
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    return lambda down, right: padded[
        :, 1 + down : 1 + down + height, 1 + right : 1 + right + width
    ]


def _connected(weak: Array, strong: Array) -> Array:
    """The parts of `weak`, connected over eight neighbours, that hold a pixel of `strong`."""
    within = np.zeros((3, 3, 3), dtype=bool)
    within[1] = True  # images do not touch
    labels, count = ndimage.label(weak, within)
    kept = np.zeros(count + 1, dtype=bool)
    kept[labels[strong]] = True
    return kept[labels] & weak
