"""Corruptions that mix a pixel with its neighbours; see `pixels` for what they take and give."""

import functools
import math

import numpy as np
from scipy import ndimage

from bnnlib.data.corruptions.pixels import Generators, draw, to_bytes
from bnnlib.data.npz import Array


def gaussian_blur(images: Array, sigma: float, rngs: Generators) -> Array:
    """Blurs with a normal kernel, standard deviation in pixels."""
    return _gaussian(images, sigma, sigma)


def mnist_glass_blur(images: Array, strength: tuple[float, int, int], rngs: Generators) -> Array:
    """Glass blur as MNIST-C has it: pixels swap places by the toss of a coin.

    MNIST-C's code takes a grey image's columns for channels, so it blurs along columns alone. The
    published images are made so, and ours are.
    """
    return _glass_blur(images, strength, rngs, across=0.0, swap=True)


def cifar_glass_blur(images: Array, strength: tuple[float, int, int], rngs: Generators) -> Array:
    """Glass blur as CIFAR-10-C has it: every pixel becomes a near one.

    CIFAR-10-C's code means to swap two pixels, but writes the second over the first through a view
    and so copies it. The published images are made so, and ours are.
    """
    return _glass_blur(images, strength, rngs, across=strength[0], swap=False)


def _glass_blur(
    images: Array, strength: tuple[float, int, int], rngs: Generators, across: float, swap: bool
) -> Array:
    sigma, reach, rounds = strength
    count, height, width, _ = images.shape
    blurred = to_bytes(_gaussian(images, sigma, across))
    # Of each round, row and column: where the pixel goes, down and right, and the coin; of images.
    moves = draw(rngs, lambda rng: rng.integers(-reach, reach, (rounds, height, width, 2), np.int8))
    moves = np.ascontiguousarray(moves.transpose(1, 2, 3, 4, 0)).astype(np.intp)
    coins = draw(rngs, lambda rng: rng.random((rounds, height, width), np.float32) < 0.5)
    coins = np.ascontiguousarray(coins.transpose(1, 2, 3, 0))
    # Pixel by pixel, since later ones meet what earlier ones have moved; all images at once.
    pixels = np.ascontiguousarray(blurred.transpose(1, 2, 0, 3))
    which = np.arange(count)
    for one in range(rounds):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, right = moves[one, row, column]
                if swap:
                    down, right = down * coins[one, row, column], right * coins[one, row, column]
                rows, columns = row + down, column + right
                if swap:
                    before = pixels[row, column].copy()
                    pixels[row, column] = pixels[rows, columns, which]
                    pixels[rows, columns, which] = before
                else:
                    pixels[row, column] = pixels[rows, columns, which]
    shuffled = np.ascontiguousarray(pixels.transpose(2, 0, 1, 3)).astype(np.float32)
    return _gaussian(shuffled / np.float32(255), sigma, across)


def defocus_blur(images: Array, strength: tuple[float, float], rngs: Generators) -> Array:
    """Blurs with a disk of a radius in pixels, whose edge is itself blurred by a sigma."""
    radius, sigma = strength
    disk = np.hypot(*np.meshgrid(*2 * [np.arange(-3, 4)])) <= radius
    edge = np.exp(-0.5 * (np.arange(-1, 2) / sigma) ** 2)
    kernel = ndimage.convolve(disk / disk.sum(), np.outer(edge, edge) / edge.sum() ** 2)
    return ndimage.correlate(
        images, kernel.astype(np.float32)[np.newaxis, :, :, np.newaxis], mode="mirror"
    )


def motion_blur(images: Array, strength: tuple[float, float], rngs: Generators) -> Array:
    """Smears each image along a line at −45° to 45° from the rows."""
    return smear(images, *strength, draw(rngs, lambda rng: rng.uniform(-45.0, 45.0)))


def smear(images: Array, radius: float, sigma: float, degrees: Array) -> Array:
    """ImageMagick's motion blur: half a normal kernel along a line through the nearest pixels.

    Args:
        images: `(n, height, width, channels)`, 0..1; beyond the border stands its last pixel.
        radius: Pixels; the line has twice as many, and its first one.
        sigma: Standard deviation of the kernel, pixels.
        degrees: `(n,)`, the line's angle from the rows, downwards.

    Returns:
        The images, rounded to bytes as ImageMagick writes them.
    """
    steps = np.arange(2 * math.ceil(radius) + 1)
    kernel = np.exp(-0.5 * (steps / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    border = len(steps) - 1
    height, width = images.shape[1:3]
    wide = np.pad(images, ((0, 0), (border, border), (border, border), (0, 0)), mode="edge")
    angles = np.deg2rad(degrees)[:, np.newaxis]
    rows = border + np.ceil(steps * np.sin(angles) - 0.5).astype(int)
    columns = border + np.ceil(steps * np.cos(angles) - 0.5).astype(int)
    smeared = np.zeros_like(images)
    for image, source, down, right in zip(smeared, wide, rows, columns, strict=True):
        for weight, row, column in zip(kernel, down, right, strict=True):
            image += weight * source[row : row + height, column : column + width]
    return np.rint(np.clip(smeared, 0.0, 1.0) * np.float32(255)) / np.float32(255)


def zoom_blur(images: Array, factors: tuple[float, float], rngs: Generators) -> Array:
    """Takes the mean of the image and of its enlargements from 1 up to a factor, in steps."""
    count, height, width, channels = images.shape
    matrix = _mean_enlargement(height, width, *factors)
    columns = images.transpose(1, 2, 0, 3).reshape(height * width, count * channels)
    blurred = (matrix @ columns).reshape(height, width, count, channels)
    return np.ascontiguousarray(blurred.transpose(2, 0, 1, 3))


@functools.lru_cache(maxsize=1)
def _mean_enlargement(height: int, width: int, end: float, step: float) -> Array:
    """The mean of all enlargements as one matrix over the pixels of a channel: each is linear."""
    factors = np.arange(1.0, end, step)
    matrix = np.eye(height * width, dtype=np.float32)
    for factor in factors:
        matrix += np.kron(enlargement(height, factor), enlargement(width, factor))
    return matrix / np.float32(len(factors) + 1)


def enlargement(size: int, factor: float) -> Array:
    """The matrix `(size, size)` that enlarges an axis about its centre, bilinear, and crops it.

    As `scipy.ndimage.zoom` of the middle pixels does, whose first and last stay first and last.
    """
    inner = math.ceil(size / factor)
    grown = round(inner * factor)
    position = (np.arange(size) + (grown - size) // 2) * (inner - 1) / (grown - 1)
    low = np.minimum(position.astype(int), inner - 2)
    matrix = np.zeros((size, size), dtype=np.float32)
    first = low + (size - inner) // 2
    matrix[np.arange(size), first] = 1 - (position - low)
    matrix[np.arange(size), first + 1] = position - low
    return matrix


def _gaussian(images: Array, along: float, across: float) -> Array:
    """Blurs along columns (over the rows) and across them, as scikit-image's `gaussian` does."""
    return ndimage.gaussian_filter(images, (0, along, across, 0), mode="nearest")
