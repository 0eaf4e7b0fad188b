"""The field's two corruption benchmarks, MNIST-C and CIFAR-10-C, by their published definitions.

MNIST-C (Mu & Gilmer 2019, arXiv 1906.02337; google-research/mnist-c) has 15 corruptions of one
severity, CIFAR-10-C (Hendrycks & Dietterich 2019, arXiv 1903.12261; hendrycks/robustness) 15 and
four extra ones of five. Their sets are called `mnist_c/<corruption>` and
`cifar10_c/<corruption>-<1..5>`.

The user's own folder of published files wins (`published`). Where it has none, the images are made
here without OpenCV, ImageMagick or scikit-image, to the same pixels up to rounding, but with random
draws of their own, so that a score differs by chance from that on the published files. One
corruption is another: no photographs of frost are at hand, and a texture stands for them.

Rooms: `pixels`, `blurs`, `shapes`, `edges`, `weather` (the corruptions), `published` (the files).
"""

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bnnlib.data.corruptions import blurs, edges, pixels, shapes, weather
from bnnlib.data.npz import Array
from bnnlib.errors import DataError

# Images that a corruption works on at once; it takes some ten times their memory.
BLOCK = 250


class Corruption(NamedTuple):
    """A corruption and its strength at each severity."""

    apply: Callable[[Array, Any, pixels.Generators], Array]
    strengths: tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A published set of corruptions of one data set's test images.

    Attributes:
        title: Its name in sentences.
        dataset: The data set whose test images the published files hold.
        size: Height and width of the images, in pixels.
        to_bytes: How its images in 0..1 become uint8.
        corruptions: By name.
    """

    title: str
    dataset: str
    size: int
    to_bytes: Callable[[Array], Array]
    corruptions: Mapping[str, Corruption]


def _rounded(images: Array) -> Array:
    return np.rint(np.clip(images, 0.0, 1.0) * np.float32(255)).astype(np.uint8)


# MNIST-C took one of five severities of each; where its code says so, which. What is 28 wide in it
# is 28 wide here.
MNIST_C = Benchmark(
    title="MNIST-C",
    dataset="mnist",
    size=28,
    to_bytes=_rounded,
    corruptions={
        "shot_noise": Corruption(pixels.shot_noise, (3,)),  # photons
        "impulse_noise": Corruption(pixels.impulse_noise, (0.17,)),  # share of values
        "glass_blur": Corruption(blurs.mnist_glass_blur, ((0.7, 1, 2),)),  # sigma, reach, rounds
        "motion_blur": Corruption(blurs.motion_blur, ((10, 3),)),  # radius, sigma
        "shear": Corruption(shapes.shear, (0.4,)),  # radians
        "scale": Corruption(shapes.scale, (0.7,)),  # share of height and width
        "rotate": Corruption(shapes.rotate, (0.4,)),  # radians
        "brightness": Corruption(pixels.brightness, (0.5,)),
        "translate": Corruption(shapes.translate, (3,)),  # pixels
        "stripe": Corruption(pixels.stripe, (7,)),  # columns at each side
        "fog": Corruption(weather.fog, ((3.0, 1.4, 256),)),  # thickness, decay, size of the map
        "spatter": Corruption(weather.spatter, (("mud", (0.65, 0.3, 1, 0.65, 1.5)),)),
        "dotted_line": Corruption(shapes.dotted_line, (None,)),
        "zigzag": Corruption(shapes.zigzag, (None,)),
        "canny_edges": Corruption(edges.canny_edges, ((0.1, 0.2),)),  # thresholds
    },
)


_CIFAR10_C = {
    "gaussian_noise": Corruption(pixels.gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": Corruption(pixels.shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": Corruption(pixels.impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "defocus_blur": Corruption(
        blurs.defocus_blur, ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))
    ),
    "glass_blur": Corruption(
        blurs.cifar_glass_blur,
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    ),
    "motion_blur": Corruption(blurs.motion_blur, ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))),
    "zoom_blur": Corruption(
        blurs.zoom_blur, ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))
    ),
    "snow": Corruption(
        weather.snow,
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    ),
    "frost": Corruption(weather.frost, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "fog": Corruption(
        weather.fog, ((0.2, 3, 32), (0.5, 3, 32), (0.75, 2.5, 32), (1, 2, 32), (1.5, 1.75, 32))
    ),
    "brightness": Corruption(pixels.brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": Corruption(pixels.contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    # The field's factor, its smoothing and how far three points move, as shares of 32 pixels.
    "elastic_transform": Corruption(
        shapes.elastic_transform,
        tuple(
            (32 * factor, 32 * sigma, 32 * reach)
            for factor, sigma, reach in (
                (0, 0, 0.08),
                (0.05, 0.2, 0.07),
                (0.08, 0.06, 0.06),
                (0.1, 0.04, 0.05),
                (0.1, 0.03, 0.03),
            )
        ),
    ),
    "pixelate": Corruption(pixels.pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": Corruption(pixels.jpeg_compression, (80, 65, 58, 50, 40)),
}
# The four on which its authors let models be chosen, so that the 15 stay for the test.
_CIFAR10_C_EXTRA = {
    "speckle_noise": Corruption(pixels.speckle_noise, (0.06, 0.1, 0.12, 0.16, 0.2)),
    "gaussian_blur": Corruption(blurs.gaussian_blur, (0.4, 0.6, 0.7, 0.8, 1)),
    "spatter": Corruption(
        weather.spatter,
        (
            ("water", (0.62, 0.1, 0.7, 0.7, 0.5)),
            ("water", (0.65, 0.1, 0.8, 0.7, 0.5)),
            ("water", (0.65, 0.3, 1, 0.69, 0.5)),
            ("mud", (0.65, 0.1, 0.7, 0.69, 0.6)),
            ("mud", (0.65, 0.1, 0.5, 0.68, 0.6)),
        ),
    ),
    "saturate": Corruption(pixels.saturate, ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))),
}
CIFAR10_C = Benchmark(
    title="CIFAR-10-C",
    dataset="cifar10",
    size=32,
    to_bytes=pixels.to_bytes,
    corruptions=_CIFAR10_C | _CIFAR10_C_EXTRA,
)
BENCHMARKS = {"mnist_c": MNIST_C, "cifar10_c": CIFAR10_C}


class Member(NamedTuple):
    """One set of a benchmark: of which, by which corruption, at which severity from 1."""

    benchmark: Benchmark
    corruption: str
    severity: int


# Every set by its name.
SETS = {f"mnist_c/{name}": Member(MNIST_C, name, 1) for name in MNIST_C.corruptions} | {
    f"cifar10_c/{name}-{severity}": Member(CIFAR10_C, name, severity)
    for name in CIFAR10_C.corruptions
    for severity in range(1, 6)
}


def _severities(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"cifar10_c/{name}-{severity}" for name in names for severity in range(1, 6))


GROUPS = {
    "mnist_c": tuple(f"mnist_c/{name}" for name in MNIST_C.corruptions),
    "cifar10_c": _severities(_CIFAR10_C),
    "cifar10_c_extra": _severities(_CIFAR10_C_EXTRA),
    **{f"cifar10_c/{name}": _severities([name]) for name in CIFAR10_C.corruptions},
}


def check_shape(name: str, image_shape: tuple[int, int, int]) -> None:
    """Refuses images that a set's corruption is not defined for.

    Args:
        name: One of `SETS`.
        image_shape: Height, width and channels of the images.

    Raises:
        DataError: They have another size, or the corruption needs colour.
    """
    benchmark, corruption, _ = SETS[name]
    height, width, channels = image_shape
    wanted = [1, 3] if corruption != "saturate" else [3]
    if (height, width) != (benchmark.size, benchmark.size) or channels not in wanted:
        raise DataError(
            f"{name!r} is defined for images of {benchmark.size} x {benchmark.size} pixels and "
            f"{' or '.join(map(str, wanted))} channel(s), but these have {height} x {width} and "
            f"{channels}; take the group corruptions, which is made for images of any size."
        )


def corrupt(name: str, images: Array, numbers: npt.NDArray[np.int64] | None = None) -> Array:
    """Corrupts images as a benchmark does.

    What is drawn for an image depends on the corruption and on the image's number alone: it is the
    same on every rank, in any part of the set and, shot noise apart, at every severity.

    Args:
        name: One of `SETS`.
        images: uint8 `(n, height, width, channels)` of a shape that `check_shape` lets pass.
        numbers: Theirs among the test images; None: from 0 on.

    Returns:
        uint8, the same shape.
    """
    benchmark, corruption, severity = SETS[name]
    apply, strengths = benchmark.corruptions[corruption]
    seed = zlib.crc32(f"{benchmark.title}/{corruption}".encode())
    result = np.empty_like(images)
    for start in range(0, len(images), BLOCK):
        part = slice(start, start + BLOCK)
        unit = images[part].astype(np.float32) / np.float32(255)
        its_numbers = range(start, start + len(unit)) if numbers is None else numbers[part]
        rngs = [np.random.default_rng([seed, number]) for number in its_numbers]
        result[part] = benchmark.to_bytes(apply(unit, strengths[severity - 1], rngs))
    return result
