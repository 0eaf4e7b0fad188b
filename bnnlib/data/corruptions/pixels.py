"""Corruptions that change each pixel by itself, or pass the image through a coarser form.

Every corruption takes images `(n, height, width, channels)`, float32 in 0..1, its strength and one
random generator an image. It gives images of the same shape and may leave the range.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from bnnlib.data.npz import Array

Generators = Sequence[np.random.Generator]
# ITU-R BT.601, as OpenCV and Pillow take grey from colour.
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def draw(rngs: Generators, one: Callable[[np.random.Generator], Any]) -> Array:
    """Stacks what each image's own generator gives, `(n, ...)`."""
    return np.stack([one(rng) for rng in rngs])


def to_bytes(images: Array) -> Array:
    """0..1 to uint8, clipped and truncated as `numpy.uint8` truncates.

    What is whole up to float32's rounding stays: 99.9999 is 100.
    """
    return np.floor(np.clip(images, 0.0, 1.0) * np.float32(255) + np.float32(1e-3)).astype(np.uint8)


def gaussian_noise(images: Array, stddev: float, rngs: Generators) -> Array:
    """Adds normal noise of a standard deviation."""
    return images + np.float32(stddev) * _normal(images, rngs)


def speckle_noise(images: Array, stddev: float, rngs: Generators) -> Array:
    """Adds normal noise whose standard deviation is a share of the pixel."""
    return images * (1 + np.float32(stddev) * _normal(images, rngs))


def shot_noise(images: Array, photons: float, rngs: Generators) -> Array:
    """Counts Poisson photons, of which so many make the brightest value."""
    counts = [rng.poisson(image * photons) for image, rng in zip(images, rngs, strict=True)]
    return np.stack(counts).astype(np.float32) / np.float32(photons)


def impulse_noise(images: Array, share: float, rngs: Generators) -> Array:
    """Makes a share of the values darkest or brightest, either with probability one half."""
    hit, salt = draw(rngs, lambda rng: rng.random((2, *images.shape[1:]), np.float32)).swapaxes(
        0, 1
    )
    return np.where(hit < share, (salt < 0.5).astype(np.float32), images)


def contrast(images: Array, factor: float, rngs: Generators) -> Array:
    """Multiplies the distance from each channel's mean."""
    mean = images.mean(axis=(1, 2), keepdims=True)
    return mean + np.float32(factor) * (images - mean)


def brightness(images: Array, added: float, rngs: Generators) -> Array:
    """Adds to the value of HSV, which is the largest channel; hue and saturation stay."""
    value = images.max(axis=3, keepdims=True)
    new = np.minimum(value + np.float32(added), 1.0)
    # With hue and saturation the ratios of the channels stay; black has neither and becomes grey.
    return np.where(value > 0, images / np.where(value > 0, value, 1) * new, new)


def saturate(images: Array, strength: tuple[float, float], rngs: Generators) -> Array:
    """Takes the saturation of HSV times a factor, plus an addend; hue and value stay."""
    factor, added = strength
    value = images.max(axis=3, keepdims=True)
    depth = value - images  # a channel's distance from the value is value · saturation · f(hue)
    saturation = depth.max(axis=3, keepdims=True) / np.where(value > 0, value, 1)
    new = np.clip(saturation * np.float32(factor) + np.float32(added), 0.0, 1.0)
    red = value * new * np.array([0, 1, 1], dtype=np.float32)  # grey has hue 0, which is red
    ratio = new / np.where(saturation > 0, saturation, 1)
    return value - np.where(saturation > 0, depth * ratio, red)


def stripe(images: Array, columns: int, rngs: Generators) -> Array:
    """Inverts so many columns at the left and at the right."""
    result = images.copy()
    for part in (slice(None, columns), slice(images.shape[2] - columns, None)):
        result[:, :, part] = 1 - images[:, :, part]
    return result


def jpeg_compression(images: Array, quality: int, rngs: Generators) -> Array:
    """Passes each image through a JPEG file of a quality."""

    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _through_pillow(images, compressed)


def pixelate(images: Array, share: float, rngs: Generators) -> Array:
    """Shrinks height and width to a share by means over boxes, and grows them again."""
    height, width = images.shape[1:3]
    small = int(width * share), int(height * share)
    box = Image.Resampling.BOX
    return _through_pillow(
        images, lambda image: image.resize(small, box).resize((width, height), box)
    )


def _normal(images: Array, rngs: Generators) -> Array:
    return draw(rngs, lambda rng: rng.standard_normal(images.shape[1:], np.float32))


def _through_pillow(images: Array, change: Callable[[Image.Image], Image.Image]) -> Array:
    grey = images.shape[3] == 1
    changed = [
        np.asarray(change(Image.fromarray(image[..., 0] if grey else image)))
        for image in to_bytes(images)
    ]
    return np.stack(changed).reshape(images.shape).astype(np.float32) / np.float32(255)
