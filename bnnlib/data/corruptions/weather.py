"""Fog, frost, snow and spatter; see `pixels` for what corruptions take and give."""

import itertools

import numpy as np
from scipy import ndimage

from bnnlib.data.corruptions.blurs import enlargement, smear
from bnnlib.data.corruptions.edges import canny_of_bytes
from bnnlib.data.corruptions.pixels import LUMA, Generators, draw, to_bytes
from bnnlib.data.npz import Array

# OpenCV's lengths of a step over so many pixels either way, in whole 2^-16.
STEPS = {(0, 1): 1.0, (1, 1): 91750 / 65536, (1, 2): 143976 / 65536}
PLASMA_BLOCK = 50  # maps of 256 x 256 at once, 13 MB an array

WATER = np.array([175, 238, 238], dtype=np.float32) / 255
MUD = np.array([63, 42, 20], dtype=np.float32) / 255
ICE = np.array([0.86, 0.95, 1.0], dtype=np.float32)
# Light from one corner, as a filter over the distance to an edge.
LIGHT = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])


def fog(images: Array, strength: tuple[float, float, int], rngs: Generators) -> Array:
    """Adds clouds, and brings the brightest value back to where it was.

    The strength is the brightest cloud, by how much the clouds' steps fall from one scale to the
    next (as a square root), and the size of the map that the image is a corner of.
    """
    thickness, decay, size = strength
    height, width = images.shape[1:3]
    clouds = plasma(rngs, size, decay, (height, width))[..., np.newaxis]
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    return (images + np.float32(thickness) * clouds) * brightest / (brightest + thickness)


def frost(images: Array, strength: tuple[float, float], rngs: Generators) -> Array:
    """Mixes the image with frost: factors of the image and of the frost.

    CIFAR-10-C takes crops of five photographs of frosted glass. They are not in this repository, so
    bright ridges of a plasma stand for the needles of ice: a like share of bright thin lines, not
    the same images. Scores on it are no scores on the published frost.
    """
    height, width = images.shape[1:3]
    size = 1 << (max(height, width) - 1).bit_length()
    field = plasma(rngs, size, 1.4, (height, width))
    middle = np.median(field, axis=(1, 2), keepdims=True)
    ridges = np.clip(1 - 4 * np.abs(field - middle), 0, 1) ** 2
    ice = (0.25 + 0.25 * field + 0.5 * ridges)[..., np.newaxis] * _colour(ICE, images)
    return strength[0] * images + np.float32(strength[1]) * ice


def snow(images: Array, strength: tuple[float, ...], rngs: Generators) -> Array:
    """Adds smeared flakes, twice, over a whitened image.

    The strength is mean and standard deviation of the flakes' noise, its enlargement, the least
    value that is a flake, radius and sigma of the smear, and the image's share beside its whitened
    form. ImageMagick's smear is written anew.
    """
    mean, stddev, factor, least, radius, sigma, share = strength
    height, width = images.shape[1:3]
    noise = draw(rngs, lambda rng: rng.standard_normal((height, width), np.float32))
    flakes = np.float32(mean) + np.float32(stddev) * noise
    flakes = enlargement(height, factor) @ flakes @ enlargement(width, factor).T
    flakes[flakes < least] = 0
    flakes = to_bytes(flakes)[..., np.newaxis].astype(np.float32) / np.float32(255)
    flakes = smear(flakes, radius, sigma, draw(rngs, lambda rng: rng.uniform(-135.0, -45.0)))
    grey = images @ LUMA[:, np.newaxis] if images.shape[3] == 3 else images
    white = np.maximum(images, 1.5 * grey + 0.5)
    whitened = share * images + (1 - share) * white
    return whitened + flakes + np.rot90(flakes, 2, axes=(1, 2))


def spatter(images: Array, strength: tuple[str, tuple[float, ...]], rngs: Generators) -> Array:
    """Spatters `water` or `mud`.

    The strength is which of them; and mean and standard deviation of a noise, the sigma that
    smooths it, the value above which it is wet, and the brightest drop of water, or the sigma that
    smooths the edge of mud.
    """
    kind, (mean, stddev, smooth, least, last) = strength
    noise = draw(rngs, lambda rng: rng.standard_normal(images.shape[1:3], np.float32))
    layer = np.float32(mean) + np.float32(stddev) * noise
    layer = ndimage.gaussian_filter(layer, (0, smooth, smooth), mode="nearest")
    if kind == "mud":
        return _with_mud(images, layer > least, last)
    return _with_water(images, np.where(layer < least, 0, layer), last)


def _with_mud(images: Array, wet: Array, sigma: float) -> Array:
    covered = ndimage.gaussian_filter(wet.astype(np.float32), (0, sigma, sigma), mode="nearest")
    covered = np.where(covered < 0.8, 0, covered)[..., np.newaxis]
    brown = MUD if images.shape[3] == 3 else MUD[:1]  # MNIST-C's grey mud has brown's red part
    return images * (1 - covered) + brown * covered


def _with_water(images: Array, layer: Array, brightest: float) -> Array:
    """Adds drops that shine on one side, by their distance to an edge."""
    drops = to_bytes(layer)
    distances = _distances(canny_of_bytes(drops, 50, 150))
    relief = _equalized(_truncated(_mean(distances)))
    lit = ndimage.correlate(relief.astype(int), LIGHT[np.newaxis], mode="mirror")
    relief = np.rint(_mean(np.clip(lit, 0, 255).astype(float)))
    shine = (drops * relief).astype(np.float32)[..., np.newaxis]
    most = shine.max(axis=(1, 2, 3), keepdims=True)
    shine *= np.float32(brightest) / np.where(most > 0, most, 1)  # an image may have no drop
    return images + shine * _colour(WATER, images)


def plasma(rngs: Generators, size: int, decay: float, shape: tuple[int, int]) -> Array:
    """Plasma fractals by diamonds and squares on a torus, from 0 to 1 over the whole map.

    Args:
        rngs: One an image.
        size: Height and width of a map, a power of two.
        decay: The steps' amplitude falls by its square from one scale to the next.
        shape: Height and width of the corner that is given, at most `size`.

    Returns:
        float32 `(n, height, width)`.
    """
    parts = []
    for first in range(0, len(rngs), PLASMA_BLOCK):
        block = rngs[first : first + PLASMA_BLOCK]
        steps = 2 * draw(block, lambda rng: rng.random((size, size), np.float32)) - 1
        parts.append(_plasma(steps, decay)[:, : shape[0], : shape[1]])
    return np.concatenate(parts)


def _plasma(steps: Array, decay: float) -> Array:
    """Builds maps from each place's step `(n, size, size)`, in −1..1, which it overwrites."""
    heights, cell, amplitude = steps, steps.shape[1], np.float32(1)
    heights[:, 0, 0] = 0
    while cell > 1:
        half = cell // 2
        corners = heights[:, ::cell, ::cell]
        right, below = np.roll(corners, -1, 2), np.roll(corners, -1, 1)
        centres, tops, sides = (
            heights[:, down::cell, across::cell]
            for down, across in ((half, half), (0, half), (half, 0))
        )
        centres *= amplitude
        centres += (corners + right + below + np.roll(right, -1, 1)) / 4
        tops *= amplitude
        tops += (corners + right + centres + np.roll(centres, 1, 1)) / 4
        sides *= amplitude
        sides += (corners + below + centres + np.roll(centres, 1, 2)) / 4
        cell, amplitude = half, amplitude / np.float32(decay**2)
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / heights.max(axis=(1, 2), keepdims=True)


def _colour(colour: Array, images: Array) -> Array:
    """A colour `(3,)`, or its grey `(1,)` for grey images."""
    return colour if images.shape[3] == 3 else (colour @ LUMA)[np.newaxis]


def _distances(edges: Array) -> Array:
    """Pixels from each pixel to its image's nearest edge, 20 where that is further.

    Along steps to a neighbour, a diagonal one and a knight's move, as OpenCV's `distanceTransform`
    of mask 5 takes them.
    """
    height, width = edges.shape[1:]
    padded = np.pad(np.where(edges, 0.0, 20.0), ((0, 0), (2, 2), (2, 2)), constant_values=20.0)
    distances = padded[:, 2:-2, 2:-2]
    while True:
        before = distances.copy()
        for down, right in itertools.product(range(-2, 3), repeat=2):
            if length := STEPS.get((min(abs(down), abs(right)), max(abs(down), abs(right)))):
                near = padded[:, 2 + down : 2 + down + height, 2 + right : 2 + right + width]
                np.minimum(distances, near + length, out=distances)
        if (distances == before).all():
            return before


def _mean(images: Array) -> Array:
    """Means over 3 x 3 pixels, as OpenCV's `blur`."""
    return ndimage.uniform_filter(images, (1, 3, 3), mode="mirror")


def _truncated(values: Array) -> Array:
    """Values as uint8, truncated; what is whole up to a rounding stays."""
    return (values + 1e-6).astype(np.uint8)


def _equalized(images: Array) -> Array:
    """Spreads uint8 values by their ranks, as OpenCV's `equalizeHist`: the least becomes 0."""
    result = np.empty_like(images)
    for image, out in zip(images, result, strict=True):
        counts = np.bincount(image.reshape(-1), minlength=256)
        least = counts[image.min()]
        if least == image.size:  # nothing to spread
            out[:] = image
            continue
        ranks = (np.cumsum(counts) - least) * (255 / (image.size - least))
        out[:] = np.rint(np.clip(ranks, 0, 255))[image].astype(np.uint8)
    return result
