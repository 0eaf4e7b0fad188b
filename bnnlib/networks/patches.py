"""A pooled first convolution as matrix products of an image's patches.

The convolution then is a matrix product and a maximum, and each image can have a kernel of its own,
which halves Flipout's multiplications. Where all images share a kernel, the faster way depends on
the processor. ``make bench`` measures the steps, ``figures/bench/changes.md`` has both ways.
"""

from __future__ import annotations

import functools
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from bnnlib.networks.fast_ops import largest_of_four, plain
from bnnlib.networks.seeds import Tensor

# Numbers in a patch, up to which patches take about as much memory as what is made of them.
LARGEST_PATCH = 128
# Images that are convolved and pooled before the next: what the convolution makes stays in the
# cache (MNIST, 64 images, forward and gradient, one core: 6.4 ms, 8.3 of all at once).
IMAGES_AT_ONCE = 8


class Windows(NamedTuple):
    """A block of images as a pooled first convolution sees them; made by :func:`windows_of`.

    Attributes:
        first, second, third, fourth: ``(rows, patch)``, the patches at the four places of each 2x2
            block that pooling takes the maximum of; equal uniform windows share a row.
        row_of: int32 ``(batch * height / 2 * width / 2,)``.
        side: height and width of the pooled output.
    """

    first: Tensor
    second: Tensor
    third: Tensor
    fourth: Tensor
    row_of: Tensor
    side: tuple[int, int]


def can_unfold(image_shape: tuple[int, int, int], size: int) -> bool:
    """Whether images can be taken apart for a convolution with a kernel of `size` x `size`.

    The images' sides must be even, and their patches small enough for memory.
    """
    height, width, channels = image_shape
    return height % 2 == 0 and width % 2 == 0 and size**2 * channels <= LARGEST_PATCH


def patches_of(images: Tensor, size: int) -> Tensor:
    """The input patches of a pooled convolution with a kernel of `size` x `size`.

    Args:
        images: float32 ``(batch, height, width, channels)``, for which :func:`can_unfold` holds.
        size: height and width of the kernel.

    Returns:
        float32 ``(batch, 4, height / 2 * width / 2, patch)``, second the place in the 2x2 block
        that pooling takes the maximum of.
    """
    places = _patch_places(*images.shape[1:], size)
    return tf.reshape(_pixels(images, size, places), [-1, *places.shape[:2], places[0, 0].size])


@plain
def windows_of(images: Tensor, size: int) -> Windows:
    """The patches of :func:`patches_of`, with each uniform window once, for many kernels in turn.

    A window is the part of an image that one place of the pooled output depends on; its sides are
    one pixel longer than a patch's. Half of MNIST's windows are blank.

    Args:
        images: as for :func:`patches_of`.
        size: height and width of the kernel.
    """
    height, width, channels = images.shape[1:]
    side = size + 1
    numbers = side**2 * channels
    places = _window_places(height, width, channels, size)
    every = tf.reshape(_pixels(images, size, places), [-1, numbers])
    is_uniform = tf.reduce_min(every, axis=1) == tf.reduce_max(every, axis=1)
    uniform, others = tf.where(is_uniform)[:, 0], tf.where(~is_uniform)[:, 0]
    values, which = tf.unique(tf.gather(every[:, 0], uniform))
    count = tf.shape(values)[0]
    rows = tf.concat(
        [tf.tile(values[:, tf.newaxis], [1, numbers]), tf.gather(every, others)], axis=0
    )
    rows = tf.reshape(rows, [-1, side, side, channels])
    first, second, third, fourth = (
        tf.reshape(rows[:, down : down + size, right : right + size], [-1, size**2 * channels])
        for down in (0, 1)
        for right in (0, 1)
    )
    row_of = tf.dynamic_stitch(
        [tf.cast(uniform, tf.int32), tf.cast(others, tf.int32)],
        [which, count + tf.range(tf.shape(others)[0])],
    )
    return Windows(first, second, third, fourth, row_of, (height // 2, width // 2))


@functools.lru_cache(maxsize=1)
def convolves_fast() -> bool:
    """Whether oneDNN's convolution of few channels beats products of patches on this processor.

    It does with AVX-512: 6.4 ms against 11 in `CNN_conv`'s step, without it 12 against 10.
    """
    processor = Path("/proc/cpuinfo")
    has_avx512 = processor.exists() and "avx512f" in processor.read_text()
    return has_avx512 and os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"


def pooled_convolution(images: Tensor, kernel: Tensor) -> Tensor:
    """Convolution and 2x2 max-pooling of images that are not differentiated.

    Args:
        images: float32 ``(batch, height, width, channels)``, for which :func:`can_unfold` holds.
        kernel: ``(size, size, channels, outputs)``, or one for each image.

    Returns:
        ``(batch, height / 2, width / 2, outputs)``, before bias.
    """
    if len(kernel.shape) == 4 and convolves_fast():
        batch = images.shape[0] or 1  # in one part where the graph does not know its size
        parts = tf.split(images, batch // IMAGES_AT_ONCE if batch % IMAGES_AT_ONCE == 0 else 1)
        pooled = [
            tf.nn.max_pool2d(tf.nn.conv2d(part, kernel, 1, "SAME"), 2, 2, "SAME") for part in parts
        ]
        return tf.concat(pooled, 0)
    largest = largest_of_four(*products(patches_of(images, kernel.shape[-4]), kernel))
    _, height, width, _ = images.shape
    return tf.reshape(largest, [-1, height // 2, width // 2, kernel.shape[-1]])


def products(patches: Tensor, kernel: Tensor) -> list[Tensor]:
    """The convolution's outputs at the four places of each 2x2 block.

    Args:
        patches: ``(batch, 4, height / 2 * width / 2, patch)``.
        kernel: ``(size, size, channels, outputs)``, or one for each image.

    Returns:
        Four of ``(batch, height / 2 * width / 2, outputs)``, before bias.
    """
    patch, outputs = patches.shape[-1], kernel.shape[-1]
    # A product an image, also where all share a kernel: what it makes stays in the cache.
    matrix = tf.reshape(kernel, [-1, patch, outputs])
    matrix = tf.broadcast_to(matrix, [tf.shape(patches)[0], patch, outputs])
    return [tf.matmul(place, matrix) for place in tf.unstack(patches, axis=1)]


def convolution_of_windows(windows: Windows, kernel: Tensor) -> Tensor:
    """Convolution and 2x2 max-pooling of what :func:`windows_of` gives, one kernel for all images.

    Args:
        windows: of a batch of images.
        kernel: ``(size, size, channels, outputs)``.

    Returns:
        ``(batch, height / 2, width / 2, outputs)``, before bias.
    """
    *four, row_of, side = windows
    matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
    rows = largest_of_four(*(tf.matmul(place, matrix) for place in four))
    return tf.reshape(tf.gather(rows, row_of), [-1, *side, kernel.shape[-1]])


def _pixels(images: Tensor, size: int, places: np.ndarray) -> Tensor:
    """The numbers at `places` of each padded image: ``(batch, places.size)``, in their order."""
    before, after = (size - 1) // 2, size // 2  # SAME padding
    padded = tf.pad(images, [[0, 0], [before, after], [before, after], [0, 0]])
    # Pixels first: a pixel of all images is one piece of memory to copy.
    pixels = tf.transpose(tf.reshape(padded, [-1, math.prod(padded.shape[1:])]))
    return tf.transpose(tf.gather(pixels, places.ravel()))


@functools.lru_cache(maxsize=8)
def _window_places(height: int, width: int, channels: int, size: int) -> np.ndarray:
    """Places in a flat padded image: ``(windows, size + 1, size + 1, channels)``, int32."""
    below, right, down, along, channel = np.ogrid[
        0:height:2, 0:width:2, 0 : size + 1, 0 : size + 1, 0:channels
    ]
    places = ((below + down) * (width + size - 1) + right + along) * channels + channel
    return places.reshape(-1, size + 1, size + 1, channels).astype(np.int32)


@functools.lru_cache(maxsize=8)
def _patch_places(height: int, width: int, channels: int, size: int) -> np.ndarray:
    """Places of all patches, likewise: ``(4, windows, size, size, channels)``, int32."""
    windows = _window_places(height, width, channels, size)
    return np.stack([windows[:, a : a + size, b : b + size] for a in (0, 1) for b in (0, 1)])
