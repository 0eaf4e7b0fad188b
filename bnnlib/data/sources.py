"""MNIST and CIFAR-10: where their files lie, how they come there, and that they are the real ones.

Keras' copy of CIFAR-10 is a pickle; its opcodes are read and never run. The arrays are verified by
the SHA-256 of their bytes, whatever container they came in.

Environment variables:
    BNN_DATA: folder with `mnist.npz` and `cifar10.npz` (keys x_train, y_train, x_test, y_test), and
        with `fashion_mnist_test.npz`, `kmnist_test.npz` and so on (key x_test), the sets out of
        distribution (`bnnlib.data.ood`), and the published files of MNIST-C and CIFAR-10-C
        (`bnnlib.data.corruptions.published`). Where it is not set or lacks MNIST or CIFAR-10,
        Keras' cache `~/.keras/datasets` is read, and after that the file is downloaded into that
        cache.
"""

import contextlib
import fcntl
import hashlib
import logging
import os
import pathlib
import pickletools
import tarfile
import tempfile
import uuid
import zlib
from collections.abc import Iterator, Sequence
from typing import IO

import numpy as np
import numpy.typing as npt

from bnnlib.data.npz import Array, exists, path_of, read_npz
from bnnlib.errors import DataError, MissingDataError

logger = logging.getLogger(__name__)

ARRAY_KEYS = ("x_train", "y_train", "x_test", "y_test")

# A compute node often has a network that swallows packets; without a limit a download never fails.
DOWNLOAD_TIMEOUT_SECONDS = 15.0

# SHA-256 of the arrays' bytes in C order, images as uint8, labels as little-endian int64 of one
# dimension, so that Keras' containers (uint8 labels, in columns for CIFAR-10) give the same.
SHA256 = {
    "digits": {
        "images": "2913c6b6527114b7307e1086335a7665e3f94c74aba3d67525e6f116bf5ae20f",
        "labels": "c3556f4a243d7dc7c1fb41d5302fb5050146cd15b4b1e72e41d57339c79a1367",
    },
    "mnist": {
        "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "y_train": "e474323ac02fc156161b0bbb1f8c9cfeb327a74bcd9f9680a8385269a24f566c",
        "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "y_test": "2fd8de6bdb8d11780b4b96dc57847bcfe6953f7c32aa48bfcd8237c3b7847243",
    },
    "cifar10": {
        "x_train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "y_train": "f5cfe00b0f00968c0cc5ff3b1d2de51b10e33efa277c2986f4e0fa63e58c9f4f",
        "x_test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "y_test": "cbb7365de8ed11f05cc4c3a1e7f78144127c5e851efd83762fb18202461230bb",
    },
    "fashion_mnist": {
        "x_test": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    },
    "kmnist": {
        "x_test": "dc10e73c6e83fb3fb3586eafece217ab6602e7825fa7d49399359bde3fc66f07",
    },
}

# The file in Keras' cache, as Keras' own loaders name it, where it comes from, and its SHA-256.
DOWNLOADS = {
    "mnist": (
        "mnist.npz",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
        "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
    ),
    "cifar10": (
        "cifar-10-batches-py.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
}


def canonical(name: str, keys: Sequence[str]) -> dict[str, Array]:
    """Reads and verifies arrays of `mnist` or `cifar10` from the first place that has them."""
    tried: list[str] = []
    folder = bnn_data_folder()
    if folder is None:
        tried.append("$BNN_DATA (not set)")
    else:
        path = folder / f"{name}.npz"
        if exists(path):
            # A file that is there and wrong is an error: to pass over it would hide the mistake.
            return _verified(path, name, read_npz(path, keys, _remedy(name)), keys)
        logger.warning("BNN_DATA is set, but has no %s; trying Keras' cache.", path)
        tried.append(f"{path} (no such file)")

    for cache in keras_caches():
        for path in _cached_files(cache, name):
            try:
                if exists(path):
                    return _read_keras(path, name, keys)
                tried.append(f"{path} (no such file)")
            except DataError as error:
                logger.warning("Keras' cache is passed over: %s", error)
                tried.append(f"{path} (damaged)")

    origin = DOWNLOADS[name][1]
    try:
        path = _download(name)
    except DataError as error:
        tried.append(f"the download of {origin} ({error})")
        raise MissingDataError(
            f"The data set {name!r} was not found; tried {'; '.join(tried)}. {_remedy(name)}"
        ) from None  # the reason is in the sentence
    return _read_keras(path, name, keys)


def _remedy(name: str) -> str:
    return (
        f"On a machine with network, load {name!r} once to fill ~/.keras/datasets, or put a "
        f"{name}.npz with {', '.join(ARRAY_KEYS)} as keras.datasets.{name} gives them in the "
        "folder that BNN_DATA names."
    )


def bnn_data_folder() -> pathlib.Path | None:
    """The folder that BNN_DATA names; None where it is not set."""
    value = os.environ.get("BNN_DATA", "")
    return path_of(value) if value else None


def keras_caches() -> list[pathlib.Path]:
    """The folders in which Keras keeps data sets, in the order in which it tries them."""
    # The second is where Keras goes when the home directory cannot be written. Everything that is
    # read from either is verified, so it does not matter that all users can write there.
    homes = [os.path.expanduser("~"), tempfile.gettempdir()]
    # A user without HOME and without an entry of the system has no home: `~` stays as it is.
    return [pathlib.Path(home, ".keras", "datasets") for home in homes if os.path.isabs(home)]


def _cached_files(cache: pathlib.Path, name: str) -> list[pathlib.Path]:
    if name == "mnist":
        return [cache / "mnist.npz"]
    return [
        cache / "cifar-10-batches-py",  # Keras 2, unpacked
        cache / "cifar-10-batches-py-target" / "cifar-10-batches-py",  # Keras 3, unpacked
        cache / "cifar-10-batches-py.tar.gz",
    ]


def _read_keras(path: pathlib.Path, name: str, keys: Sequence[str]) -> dict[str, Array]:
    if name == "mnist":
        arrays = read_npz(path, keys, _remedy(name))
    else:
        arrays = _read_cifar10_batches(path, keys)
    return _verified(path, name, arrays, keys)


def _verified(
    path: pathlib.Path, name: str, arrays: dict[str, Array], keys: Sequence[str]
) -> dict[str, Array]:
    """Brings arrays to one form and holds them against their checksums."""
    result = {}
    for key in keys:
        array = arrays[key]
        if key.startswith("x"):
            array = array[..., np.newaxis] if array.ndim == 3 else array
        elif array.dtype.kind in "iu":
            array = array.reshape(-1).astype("<i8")
        array = np.ascontiguousarray(array)
        dtype = np.dtype(np.uint8 if key.startswith("x") else "<i8")
        if array.dtype != dtype or sha256_of(array) != SHA256[name][key]:
            raise DataError(
                f"{path}: {key} ({array.dtype}, shape {array.shape}) is not that of {name!r} "
                f"(SHA-256 of its bytes is not {SHA256[name][key][:16]}…). {_remedy(name)}"
            )
        result[key] = array
    return result


def sha256_of(array: Array) -> str:
    """SHA-256 of a contiguous array's bytes, in hexadecimal digits."""
    return hashlib.sha256(array.reshape(-1).data).hexdigest()


def _read_cifar10_batches(path: pathlib.Path, keys: Sequence[str]) -> dict[str, Array]:
    """Reads Keras' copy of CIFAR-10, a folder of pickles or an archive of it."""
    files = {
        "train": [f"data_batch_{number}" for number in range(1, 6)],
        "test": ["test_batch"],
    }
    splits = {key.partition("_")[2] for key in keys}
    contents: dict[str, bytes] = {}
    try:
        wanted = [file for split in sorted(splits) for file in files[split]]
        if path.is_dir():
            for file in wanted:
                contents[file] = (path / file).read_bytes()
        else:
            # Read in place: an unpacking folder could be met half full by another process.
            with tarfile.open(path, "r:gz") as archive:
                for member in archive:
                    file = pathlib.PurePosixPath(member.name).name
                    if file in wanted and member.isfile() and member.size < 2**26:
                        stream = archive.extractfile(member)
                        contents[file] = stream.read() if stream else b""
        missing = [file for file in wanted if file not in contents]
        if missing:
            raise ValueError(f"no {', '.join(missing)}")
        arrays: dict[str, Array] = {}
        for split in splits:
            images, labels = zip(
                *(_parse_cifar10_batch(contents[file]) for file in files[split]), strict=True
            )
            arrays[f"x_{split}"] = np.concatenate(images)
            arrays[f"y_{split}"] = np.concatenate(labels)
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise DataError(
            f"{path}: cannot be read as CIFAR-10's Python version ({error}); delete it, and it is "
            "downloaded again."
        ) from error
    return arrays


def _parse_cifar10_batch(content: bytes) -> tuple[Array, npt.NDArray[np.int64]]:
    """Takes images and labels out of a pickle without running it.

    The stream of opcodes is only read. One string holds all pixels, and the labels are the small
    integers between the string 'labels' and the next string; the checksums tell whether that is so.
    """
    pixels = b""
    labels: list[int] = []
    in_labels = False
    for opcode, argument, _ in pickletools.genops(content):
        if isinstance(argument, str) and "STRING" in opcode.name:
            in_labels = argument == "labels"
            if len(argument) % 3072 == 0 and len(argument) > len(pixels):
                pixels = argument.encode("latin-1")
        elif in_labels and opcode.name == "BININT1" and isinstance(argument, int):
            labels.append(argument)
    images = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images, np.array(labels, dtype=np.int64)


def _download(name: str) -> pathlib.Path:
    """Downloads a data set's file into Keras' cache, once however many processes ask.

    `pooch` writes beside the final path, verifies the file and renames it, so no process reads half
    a file. It does not lock: all nodes that share a home directory would download at once, and all
    would wait for a network that is not there. So the call stands under a file lock.

    Returns:
        The file.

    Raises:
        DataError: The download failed, here or in the process that held the lock before.
    """
    file, origin, sha256 = DOWNLOADS[name]
    cache = next((folder for folder in keras_caches() if _can_write(folder)), None)
    if cache is None:
        raise DataError("no folder for it can be written")
    with contextlib.ExitStack() as stack:
        try:
            lock, note = stack.enter_context(_locked(cache / f".{file}.lock"))
        except OSError as error:
            raise DataError(f"its lock file cannot be opened, {error}") from error
        # Those who waited learn that the one before them failed, instead of each waiting in turn
        # for a network that is not there.
        if note:
            raise DataError(note.partition(" ")[2])
        import pooch  # here, since it is needed once in a data set's life

        downloader = pooch.HTTPDownloader(timeout=DOWNLOAD_TIMEOUT_SECONDS)
        try:
            pooch.retrieve(origin, sha256, fname=file, path=cache, downloader=downloader)
            # Pooch lets only the owner read it; all users of a node may share the second cache.
            with contextlib.suppress(PermissionError):  # downloaded by another user meanwhile
                (cache / file).chmod(0o644)
        except (OSError, ValueError) as error:  # no network or no room; another checksum
            reason = " ".join(str(error).split())
            lock.truncate(0)
            lock.write(f"{uuid.uuid4()} {reason}")  # no two notes are the same
            raise DataError(reason) from error
    return cache / file


def _can_write(folder: pathlib.Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[tuple[IO[str], str]]:
    """Holds an exclusive lock between processes on a file while the block runs.

    Not `filelock`: its lock is flock's, which many file systems do not carry between nodes, or a
    file whose mere existence locks, which a killed process leaves behind.

    Yields:
        The file, open for appending, and what another process has written into it while this one
        waited; empty if none did. So no clock decides whose note counts: clocks of nodes differ.
    """

    # A link is not followed: the second cache folder is one where other users can put one.
    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | os.O_NOFOLLOW, 0o666)

    with open(path, "a+", opener=opener, encoding="utf-8") as file:
        before = _content(file)
        try:
            # POSIX locks, which NFS carries between nodes too, unlike flock on many of them.
            fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError as error:  # some parallel file systems are mounted without locks
            logger.warning("%s cannot be locked (%s); going on without.", path, error)
        after = _content(file)
        yield file, "" if after == before else after  # closing the file releases the lock


def _content(file: IO[str]) -> str:
    # Past the file's own buffer, in which nothing of other processes would be seen.
    return os.pread(file.fileno(), 2**16, 0).decode(errors="replace")
