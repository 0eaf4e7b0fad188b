"""Reads .npz files: checks keys, sizes and shapes before it takes an array.

The module never unpickles. Every failure is one `DataError` that names the file, what was expected
and what to do.

Environment variables:
    BNN_DATA_MAX_BYTES: the most that a file's arrays may take in memory, in bytes (default 8 GiB).
"""

import contextlib
import lzma
import math
import os
import pathlib
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from bnnlib.errors import DataError

Array = npt.NDArray[Any]

DEFAULT_MAX_BYTES = 8 * 2**30
# A stray 64-bit identifier among the labels would otherwise ask for a layer that fits no memory.
MAX_CLASSES = 100_000

# The names of images to be predicted, of which a file has one.
IMAGE_KEYS = ("x", "images", "x_test")

_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    RuntimeError,  # an encrypted member
    NotImplementedError,  # a compression that Python does not know
    struct.error,
    UnicodeDecodeError,  # a member's name
    lzma.LZMAError,  # a compression that numpy never writes, but zipfile reads
)


def _max_bytes() -> int:
    value = os.environ.get("BNN_DATA_MAX_BYTES", "")
    if not value:
        return DEFAULT_MAX_BYTES
    if not value.isdecimal() or int(value) < 1:
        raise DataError(
            f"BNN_DATA_MAX_BYTES is {value!r}, expected a number of bytes such as 8589934592."
        )
    return int(value)


def path_of(text: str) -> pathlib.Path:
    """The path that a text names, with `~` for the home directory.

    Raises:
        DataError: The text begins with `~` and a user that this machine does not know.
    """
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(
            f"{text}: the home directory of that user is not known; expected a path such as "
            "/data/images.npz."
        ) from error


def exists(path: pathlib.Path) -> bool:
    """Whether something lies at a path.

    Raises:
        DataError: That cannot be told: a folder may not be searched, or a name is too long.
    """
    try:
        return path.exists()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be looked for ({error.strerror}); expected a path in folders that "
            "you may search."
        ) from error


def read_npz(path: pathlib.Path, keys: Sequence[str], remedy: str) -> dict[str, Array]:
    """Reads named arrays of a .npz file, without unpickling, after a check of their sizes."""
    if not exists(path) or path.is_dir():
        what = "is a folder" if exists(path) else "no such file"
        raise DataError(f"{path}: {what}; expected a .npz file with {', '.join(keys)}. {remedy}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            missing = [key for key in keys if key not in members]
            if missing:
                raise DataError(
                    f"{path}: has no {', '.join(missing)}, expected the keys {', '.join(keys)}; "
                    f"it has {', '.join(sorted(members)) or 'none'}. {remedy}"
                )
            total = sum(members[key].file_size for key in keys)
            limit = _max_bytes()
            if total > limit:
                raise DataError(
                    f"{path}: its arrays take {total:,} bytes, expected at most {limit:,}; if that "
                    "is right, set BNN_DATA_MAX_BYTES to more."
                )
            return {key: _read_member(archive, members[key], path) for key in keys}
    except _DAMAGED as error:
        raise DataError(
            f"{path}: cannot be read as a .npz file, it is truncated, damaged or something else "
            f"({error}). {remedy}"
        ) from error


def read_images(path: pathlib.Path) -> Array:
    """Reads images that a network is asked about, without unpickling.

    Args:
        path: of a .npy, or of a .npz whose images are the first of its arrays `x`, `images` and
            `x_test`, or its only array.

    Raises:
        DataError: No file is there, it is damaged, or it is not clear which array is meant.
    """
    remedy = "Write the images with numpy.savez(path, x=images) or numpy.save(path, images)."
    is_file, names = exists(path) and path.is_file(), list[str]()
    if is_file and not zipfile.is_zipfile(path):
        try:
            with path.open("rb") as file:
                return _read_array(file, path.stat().st_size, str(path))
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}). {remedy}") from error
    if is_file:
        with contextlib.suppress(*_DAMAGED), zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    known = [key for key in IMAGE_KEYS if key in names] or names
    if len(names) > 1 and known is names:
        raise DataError(
            f"{path}: has {', '.join(names)}, of which none is called {', '.join(IMAGE_KEYS)}; "
            f"expected one of these, or a single array. {remedy}"
        )
    key = known[0] if known else IMAGE_KEYS[0]  # which is missed, or the file is no .npz
    return read_npz(path, [key], remedy)[key]


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: pathlib.Path) -> Array:
    with archive.open(info) as file:
        return _read_array(file, info.file_size, f"{path}: {info.filename}")


def _read_array(file: IO[bytes], size: int, name: str) -> Array:
    """An array in numpy's own format, of a file of `size` bytes; `name` begins the errors."""
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
        else:
            raise ValueError(f"format version {version}")
    except (ValueError, TypeError, SyntaxError, RecursionError, tokenize.TokenError) as error:
        raise DataError(
            f"{name} is not a numpy array ({error}); write the file with numpy.savez_compressed."
        ) from error
    if dtype.hasobject:
        raise DataError(
            f"{name} holds Python objects, which are never unpickled; expected an array of numbers "
            "(images of different shapes give objects)."
        )
    declared, present = math.prod(shape) * dtype.itemsize, size - file.tell()
    if declared != present or any(length < 0 for length in shape):
        raise DataError(
            f"{name} says that it has shape {shape} and type {dtype}, which takes {declared:,} "
            f"bytes, but holds {present:,}; write the file again."
        )
    content = file.read()  # to the end, where zipfile checks the CRC
    array = np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
