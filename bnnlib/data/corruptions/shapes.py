"""Corruptions that move pixels about, or draw on the image; see `pixels` for what they take."""

import functools
import itertools
import math

import numpy as np
from scipy import ndimage

from bnnlib.data.corruptions.pixels import Generators, draw
from bnnlib.data.npz import Array


def shear(images: Array, amount: float, rngs: Generators) -> Array:
    """Shears by an angle in radians to either side, as scikit-image 0.15 did.

    The sheared axis keeps its length there, so the image is lower by the angle's cosine.
    """
    angle = amount * _sides(rngs)
    zero, one = np.zeros_like(angle), np.ones_like(angle)
    return _affine(images, [[one, -np.sin(angle)], [zero, np.cos(angle)]])


def rotate(images: Array, amount: float, rngs: Generators) -> Array:
    """Turns by an angle in radians to either side."""
    angle = amount * _sides(rngs)
    return _affine(images, [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def scale(images: Array, share: float, rngs: Generators) -> Array:
    """Shrinks to a share of height and width."""
    zero, grown = np.zeros(len(images)), np.full(len(images), 1 / share)
    return _affine(images, [[grown, zero], [zero, grown]])


def translate(images: Array, pixels: int, rngs: Generators) -> Array:
    """Moves by so many pixels along both axes, each in either direction."""
    right, down = pixels * _sides(rngs), pixels * _sides(rngs)
    rows, columns = np.indices(images.shape[1:3], dtype=float)
    return sample(
        images, rows + down[:, np.newaxis, np.newaxis], columns + right[:, np.newaxis, np.newaxis]
    )


def elastic_transform(
    images: Array, strength: tuple[float, float, float], rngs: Generators
) -> Array:
    """Moves three points of the image, and the rest with them; then each pixel by a smooth field.

    The strength is the field's factor, the standard deviation that smooths it, and how far the
    points move, all in pixels.
    """
    factor, sigma, reach = strength
    count, height, width, _ = images.shape
    centre, half = np.array([width // 2, height // 2]), min(height, width) // 3
    points = centre + half * np.array([[1, 1], [1, -1], [-1, -1]])  # x, y
    moved = points + draw(rngs, lambda rng: rng.uniform(-reach, reach, (3, 2)))
    ones = np.ones((count, 3, 1))
    # The map (3, 2) by which each place of the result finds its own in the image.
    back = np.linalg.solve(
        np.concatenate([moved, ones], axis=2), np.broadcast_to(points, (count, 3, 2))
    )
    rows, columns = np.indices((height, width), dtype=float)
    places = np.stack([columns, rows, np.ones_like(rows)], axis=-1).reshape(-1, 3) @ back
    places = places.reshape(count, height, width, 2)
    warped = sample(images, places[..., 1], places[..., 0], "mirror")
    if factor == 0:
        return warped
    field = draw(rngs, lambda rng: rng.uniform(-1.0, 1.0, (2, height, width)))
    field = factor * ndimage.gaussian_filter(field, (0, 0, sigma, sigma), truncate=3.0)
    return sample(warped, rows + field[:, 1], columns + field[:, 0], "reflect")


def dotted_line(images: Array, _: None, rngs: Generators) -> Array:
    """Draws a straight dotted line from the left border to the right one."""
    return (
        images + draw(rngs, lambda rng: _dots(*map(int, rng.integers(0, 27, 2))))[..., np.newaxis]
    )


def zigzag(images: Array, _: None, rngs: Generators) -> Array:
    """Draws a zigzag of two pixels' height from left to right."""

    def one(rng: np.random.Generator) -> Array:
        return _zigzag(int(rng.integers(0, 27)), int(rng.integers(-5, 5)))

    return images + draw(rngs, one)[..., np.newaxis]


def sample(images: Array, rows: Array, columns: Array, border: str = "zero") -> Array:
    """Takes values at places between pixels, bilinear.

    Args:
        images: `(n, height, width, channels)`.
        rows: `(n, height, width)`, for each pixel of the result a row of the image.
        columns: The same of columns.
        border: What lies outside: `zero`, `mirror` (c b | a b c) or `reflect` (b a | a b c).

    Returns:
        float32, the images' shape.
    """
    count, height, width, channels = images.shape
    flat = images.reshape(-1, channels)
    first = (np.arange(count) * height * width)[:, np.newaxis, np.newaxis]
    low_row, low_column = np.floor(rows).astype(int), np.floor(columns).astype(int)
    result = np.zeros(images.shape, dtype=np.float32)
    for down in (0, 1):
        row, row_weight = _inside(low_row + down, height, border)
        row_weight = row_weight * (1 - np.abs(rows - low_row - down))
        for right in (0, 1):
            column, weight = _inside(low_column + right, width, border)
            weight = row_weight * weight * (1 - np.abs(columns - low_column - right))
            taken = flat[first + row * width + column]
            result += weight[..., np.newaxis].astype(np.float32) * taken
    return result


def _inside(index: Array, size: int, border: str) -> tuple[Array, Array | float]:
    """Indices brought into 0..size-1, and the weight of what was there: 0 outside for `zero`."""
    if border == "zero":
        return np.clip(index, 0, size - 1), (index >= 0) & (index < size)
    if border == "mirror":
        index = np.abs(index) % (2 * size - 2)
        return np.minimum(index, 2 * size - 2 - index), 1.0
    index = index % (2 * size)
    return np.minimum(index, 2 * size - 1 - index), 1.0


def _sides(rngs: Generators) -> Array:
    """−1 or 1 for each image, with equal probability."""
    return draw(rngs, lambda rng: 2.0 * rng.integers(0, 2) - 1.0)


def _affine(images: Array, matrix: list[list[Array]]) -> Array:
    """Moves pixels by matrices over (column, row), one an image, that keep the centre."""
    height, width = images.shape[1:3]
    middle = np.array([(width - 1) / 2, (height - 1) / 2])
    rows, columns = np.indices((height, width), dtype=float)
    right, down = columns - middle[0], rows - middle[1]
    (a, b), (c, d) = [[each[:, np.newaxis, np.newaxis] for each in row] for row in matrix]
    return sample(images, c * right + d * down + middle[1], a * right + b * down + middle[0])


def _line(first: tuple[float, float], last: tuple[float, float]) -> Array:
    """A line between (column, row) and (column, row) in 28 x 28 pixels, `(28, 28)`, 0..1.

    Its brightness falls with the vertical distance d as 1 + log(1 − d / 2.3), to 0 where d is 1.45.
    """
    (left, top), (right, bottom) = first, last
    columns, rows = np.arange(28.0), np.arange(28.0)[:, np.newaxis]
    distance = np.abs(rows - (top + (bottom - top) / (right - left) * (columns - left)))
    drawn = np.maximum(1 + np.log(np.maximum(1 - distance / 2.3, 1e-10)), 0)
    drawn[:, : math.floor(left)] = 0
    drawn[:, math.ceil(right) :] = 0
    return drawn.astype(np.float32)


@functools.cache
def _dots(left_row: int, right_row: int) -> Array:
    line = _line((0, left_row), (27, right_row))
    return line * (np.arange(28) // 2 % 2)  # two columns without, two with


@functools.cache
def _zigzag(row: int, rise: int) -> Array:
    along, height = 2.0, 2.0  # a quarter of a period, and the amplitude
    first, last = 2, 25  # columns
    angle = math.atan(rise / (last - first))
    length = (last - first) / math.cos(angle)
    corners = [(0.0, 0.0)]
    for turn in range(int((length - along) // (2 * along)) + 1):
        corners.append(((2 * turn + 1) * along, (-1) ** turn * height))
    rest = length - 2 * along * (length // (2 * along))
    if rest:
        corners.append((length, corners[-1][1] / (2 * rest)))
    turned = [
        (
            first + x * math.cos(angle) - y * math.sin(angle),
            row + x * math.sin(angle) + y * math.cos(angle),
        )
        for x, y in corners
    ]
    lines = [_line(*ends) for ends in itertools.pairwise(turned)]
    return np.sum(lines, axis=0)
