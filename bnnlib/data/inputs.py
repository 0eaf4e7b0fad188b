"""What a network takes: enough of its training set to predict without it, and to check images.

A network that was trained on bytes answers nonsense, and no error, if it is given the same pixels
as numbers from 0 to 1. So images are held against what the network was trained on: their type, the
range of their pixels and their shape.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from bnnlib.data.npz import Array
from bnnlib.errors import DataError, RecordError

# White, divided by 255 twice, with room for rounding; no image's brightest pixel is as dark.
_DIVIDED_TWICE = 1.01 / 255
DTYPES = ("uint8", "float32")
# What pixels lie in: as the user says or their values show; `any`: the user says, used as they are.
STANDARDIZED = "standardized"
PIXELS = ("0..255", "0..1", STANDARDIZED, "any")


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a network was trained on, as far as prediction needs it; it holds no image.

    Attributes:
        name: Of the data set.
        image_shape: (height, width, channels).
        dtype: Of the stored images: uint8 or float32.
        pixels: What their values lie in, one of `PIXELS`.
        pixel_range: The darkest and the brightest value, as `Dataset.pixel_range`.
        num_classes: Number of classes.
        num_train_examples: Number of training images.
        scale: What stored pixels are multiplied by.
        mean_image: What is then subtracted, `(height, width, channels)`, float32; None for nothing.
    """

    name: str
    image_shape: tuple[int, int, int]
    dtype: str
    pixels: str
    pixel_range: tuple[float, float]
    num_classes: int
    num_train_examples: int
    scale: float
    mean_image: npt.NDArray[np.float32] | None = None

    def to_record(self) -> dict[str, Any]:
        """What `content` does not hold otherwise, as plain values."""
        mean = self.mean_image
        return {
            "pixels": self.pixels,
            "pixel_range": list(self.pixel_range),
            "mean_image": None
            if mean is None
            else base64.b64encode(mean.astype("<f4").tobytes()).decode(),
        }

    @classmethod
    def from_record(cls, name: str, content: Mapping[str, Any] | None) -> Self | None:
        """What a run's record holds of its training set; None for a record older than that.

        Args:
            name: Of the data set.
            content: Of `bnnlib.data.content`.

        Raises:
            RecordError: The record's values are damaged.
        """
        if content is None or "pixels" not in content:
            return None
        try:
            images = content["arrays"]["x_train"]
            if content["pixels"] not in PIXELS or images["dtype"] not in DTYPES:
                raise ValueError(f"pixels {content['pixels']!r} of {images['dtype']!r}")
            count, height, width, channels = map(int, images["shape"])
            low, high = map(float, content["pixel_range"])
            mean = content["mean_image"]
            if mean is not None:
                values = np.frombuffer(base64.b64decode(mean, validate=True), "<f4")
                mean = values.reshape(height, width, channels).astype(np.float32)
            return cls(
                name,
                (height, width, channels),
                images["dtype"],
                content["pixels"],
                (low, high),
                int(content["num_classes"]),
                count,
                float(content["scale"]),
                mean,
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise RecordError(
                f"run.json: key 'data' does not say what the network takes ({error!r}); remove "
                "'pixels' there to have it read from the data set"
            ) from error

    def checked(self, images: npt.ArrayLike, any_range: bool = False) -> Array:
        """Brings images to `(num_images, height, width, channels)`, uint8 or float32.

        No value is changed: what would need that is refused, with what to do.

        Args:
            images: Those, or a single image; the axis of a single channel may be left out.
            any_range: Whether pixels are taken as they are, in the training images' unit, where
                their type or range is not that of the training images.

        Returns:
            The images.

        Raises:
            DataError: They are of another shape, type or range than the training images, or not
                finite, or there are none.
        """
        try:
            array = np.asarray(images)
        except (ValueError, TypeError) as error:
            raise DataError(f"images: expected {self._form}, found no array ({error})") from None
        array = self._in_shape(array)
        if not array.size:
            raise DataError(f"images are empty {array.shape}: expected {self._form}, one or more")
        if array.dtype.kind not in "iuf":
            remedy = ""
            if array.dtype.kind == "b":
                white = 255 if self.pixels == "0..255" else 1
                remedy = f"convert them with {white} * images.astype(numpy.{self.dtype})"
            raise self._refusal(array, remedy)
        whole = array.dtype.kind in "iu"
        values = array if whole else _finite(array)
        low, high = float(values.min()), float(values.max())
        if not any_range:
            self._check_range(array, low, high, whole)
        is_bytes = self.dtype == "uint8" and whole and 0 <= low <= high <= 255
        return np.ascontiguousarray(values, np.uint8 if is_bytes else np.float32)

    @property
    def _form(self) -> str:
        """What is expected, in words."""
        return f"(num_images, {', '.join(map(str, self.image_shape))}) of {self.dtype}"

    def _in_shape(self, array: Array) -> Array:
        """Adds the axes that may be left out; refuses another shape."""
        height, width, channels = self.image_shape
        if channels == 1 and array.ndim in (2, 3) and array.shape[-2:] == (height, width):
            array = array[..., np.newaxis]
        if array.shape == self.image_shape:
            array = array[np.newaxis]
        if array.shape[1:] == self.image_shape:
            return array
        remedy = "bring them to the size of the training images"
        if array.shape[-3:] == (channels, height, width) and array.ndim in (3, 4):
            remedy = f"move the channels last with numpy.moveaxis(images, {array.ndim - 3}, -1)"
        elif array.ndim == 2 and array.shape[1] == height * width * channels:
            remedy = f"reshape them with images.reshape(-1, {height}, {width}, {channels})"
        raise self._refusal(array, remedy)

    def _check_range(self, array: Array, low: float, high: float, whole: bool) -> None:
        """Refuses pixels that the network cannot have been trained on."""
        if self.pixels in ("0..255", "0..1"):
            top = 255.0 if self.pixels == "0..255" else 1.0
            if self.dtype == "uint8" and not whole:
                rounded = "255 * images" if high <= 1 else "images"
                remedy = f"convert them with numpy.rint({rounded}).astype(numpy.uint8)"
            elif top == 255 and low >= 0 and 0 < high <= 1:
                remedy = "multiply them by 255"
            elif top == 1 and low >= 0 and 1 < high <= 255:
                remedy = "divide them by 255"
            elif top == 1 and low >= 0 and 0 < high <= np.float32(1 / 255):
                remedy = "they seem to be divided by 255 twice"
            elif low < 0 or high > top:
                remedy = "prepare them as the training images"
            else:
                return
            raise self._refusal(array, remedy)
        darkest, brightest = self.pixel_range
        span = brightest - darkest
        raw = self.pixels == STANDARDIZED and (whole or (low >= 0 and high <= 1))
        if raw or low < darkest - span or high > brightest + span:
            remedy = "prepare them as the training images, by the training set's own numbers"
            raise self._refusal(array, remedy)

    def _refusal(self, array: Array, remedy: str) -> DataError:
        """The error, whose last words are what to do."""
        has = "images"
        if array.size and array.dtype.kind in "iuf":
            has += f" with pixels from {array.min():g} to {array.max():g}"
        has += f" of shape {array.shape} and type {array.dtype}"
        lies = self.pixels
        if lies in (STANDARDIZED, "any"):
            lies = "{} from {:g} to {:g}".format("" if lies == "any" else lies, *self.pixel_range)
        expected = f"{has}: expected {self._form}, pixels {lies.strip()}, as in {self.name!r}"
        return DataError(f"{expected}; {remedy}" if remedy else expected)


def _finite(array: Array) -> Array:
    """Floating pixels as float32; refuses those that are not finite there."""
    with np.errstate(over="ignore"):  # what overflows float32 is reported
        narrow = array.astype(np.float32)
    bad = narrow.size - int(np.isfinite(narrow).sum())
    if bad:
        raise DataError(f"images have {bad:,} pixels that are not finite; replace or drop them")
    return narrow
