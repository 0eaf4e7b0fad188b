"""Where MNIST and CIFAR-10 come from, and that they are the real ones."""

import hashlib
import http.server
import io
import logging
import os
import pathlib
import pickle
import struct
import subprocess
import sys
import tarfile
import threading
import time

import numpy as np
import pytest

from bnnlib import data
from bnnlib.data import sources
from bnnlib.errors import DataError


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


@pytest.fixture
def small_cifar10(monkeypatch):
    """CIFAR-10 shrunk to eight images, in the canonical form, with its checksums."""
    rng = np.random.default_rng(0)
    arrays = {
        "x_train": rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8),
        "y_train": rng.integers(0, 10, 6),
        "x_test": rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8),
        "y_test": rng.integers(0, 10, 2),
    }
    digests = {key: digest(array) for key, array in arrays.items()}
    monkeypatch.setitem(sources.SHA256, "cifar10", digests)
    return arrays


@pytest.fixture
def small_mnist(monkeypatch):
    rng = np.random.default_rng(1)
    arrays = {
        "x_train": rng.integers(0, 256, (6, 28, 28), dtype=np.uint8),
        "y_train": rng.integers(0, 10, 6),
        "x_test": rng.integers(0, 256, (2, 28, 28), dtype=np.uint8),
        "y_test": rng.integers(0, 10, 2),
    }
    monkeypatch.setitem(sources.SHA256, "mnist", {key: digest(a) for key, a in arrays.items()})
    return arrays


def test_content_counts_whatever_the_container(tmp_path, monkeypatch, small_cifar10):
    # Keras gives CIFAR-10's labels as uint8 in a column; another writer may store in Fortran order.
    columns = {
        key: array.astype(np.uint8)[:, np.newaxis] if key[0] == "y" else np.asfortranarray(array)
        for key, array in small_cifar10.items()
    }
    np.savez_compressed(tmp_path / "cifar10.npz", **columns)
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    loaded = data.load("cifar10")
    np.testing.assert_array_equal(loaded.x_train, small_cifar10["x_train"])
    np.testing.assert_array_equal(loaded.y_test, small_cifar10["y_test"])
    assert loaded.y_test.dtype == np.int64


def test_a_wrong_file_in_bnn_data_is_an_error_and_not_passed_over(
    tmp_path, monkeypatch, empty_home, small_mnist
):
    np.savez(empty_home / ".keras" / "datasets" / "mnist.npz", **small_mnist)
    swapped = small_mnist | {"y_test": (small_mnist["y_test"] + 1) % 10}
    np.savez(tmp_path / "mnist.npz", **swapped)
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"mnist\.npz: y_test .* is not that of 'mnist' .*SHA-256"):
        data.load("mnist")


def test_bnn_data_without_the_file_falls_through_to_keras_cache(
    tmp_path, monkeypatch, caplog, empty_home, small_mnist
):
    np.savez(empty_home / ".keras" / "datasets" / "mnist.npz", **small_mnist)
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    loaded = data.load("mnist")
    assert "BNN_DATA is set, but has no" in caplog.text
    np.testing.assert_array_equal(loaded.x_test[..., 0], small_mnist["x_test"])


@pytest.mark.timeout(60)
def test_a_failed_download_names_every_place(tmp_path, monkeypatch, caplog, empty_home):
    caplog.set_level(logging.CRITICAL)
    (empty_home / ".keras" / "datasets" / "mnist.npz").write_bytes(b"half a file")
    file, _, sha256 = sources.DOWNLOADS["mnist"]
    # Nothing listens on port 9, so this fails at once with and without a network.
    monkeypatch.setitem(sources.DOWNLOADS, "mnist", (file, "http://127.0.0.1:9/mnist.npz", sha256))
    monkeypatch.setenv("BNN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError) as caught:
        data.load("mnist")
    message = str(caught.value)
    for part in (
        f"{tmp_path}/nowhere/mnist.npz (no such file)",
        f"{empty_home}/.keras/datasets/mnist.npz (damaged)",
        "the download of http://127.0.0.1:9/mnist.npz (",
        "refused",
        "put a mnist.npz with x_train, y_train, x_test, y_test",
    ):
        assert part in message


class Server(http.server.ThreadingHTTPServer):
    """Answers every GET with `content` after half a second, or with status 503 where it is None."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}/mnist.npz"
        self.content: bytes | None = None
        self.requests = 0


class Answer(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        self.server.requests += 1
        time.sleep(0.5)
        content = self.server.content
        self.send_response(503 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        """Nothing on the terminal."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def mnist_file(small_mnist):
    """The bytes of a mnist.npz, and their SHA-256."""
    file = io.BytesIO()
    np.savez(file, **small_mnist)
    return file.getvalue(), hashlib.sha256(file.getvalue()).hexdigest()


@pytest.mark.timeout(60)
def test_a_file_is_downloaded_once_and_all_users_can_read_it(
    monkeypatch, empty_home, small_mnist, mnist_file, server
):
    server.content, sha256 = mnist_file
    monkeypatch.setitem(sources.DOWNLOADS, "mnist", ("mnist.npz", server.url, sha256))
    cached = empty_home / ".keras" / "datasets" / "mnist.npz"
    cached.write_bytes(b"half a file")  # is replaced
    for _ in range(2):
        np.testing.assert_array_equal(data.load("mnist").y_train, small_mnist["y_train"])
    assert server.requests == 1
    assert cached.stat().st_mode & 0o777 == 0o644


@pytest.mark.timeout(60)
def test_a_download_of_another_file_is_refused_and_not_kept(
    monkeypatch, empty_home, mnist_file, server
):
    content, sha256 = mnist_file
    server.content = content[:-1]
    monkeypatch.setitem(sources.DOWNLOADS, "mnist", ("mnist.npz", server.url, sha256))
    with pytest.raises(DataError, match=rf"download of {server.url} \(SHA256 .*{sha256}"):
        data.load("mnist")
    assert [path.name for path in (empty_home / ".keras" / "datasets").iterdir()] == [
        ".mnist.npz.lock"
    ]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("seconds", [-300, 300])
def test_a_failure_that_was_noted_before_is_tried_again(
    monkeypatch, empty_home, small_mnist, mnist_file, server, seconds
):
    """Also where the clock of the node that noted it is ahead."""
    server.content, sha256 = mnist_file
    monkeypatch.setitem(sources.DOWNLOADS, "mnist", ("mnist.npz", server.url, sha256))
    lock = empty_home / ".keras" / "datasets" / ".mnist.npz.lock"
    lock.write_text(f"{time.time() + seconds} no network")
    np.testing.assert_array_equal(data.load("mnist").y_train, small_mnist["y_train"])


# One of three processes that start together.
DOWNLOADER = """
import sys
from bnnlib.data import sources
from bnnlib.errors import DataError
sources.DOWNLOADS["mnist"] = ("mnist.npz", *sys.argv[1:])
print("ready", flush=True)
sys.stdin.readline()
try:
    print(sources._download("mnist").read_text())
except DataError as error:
    print("DataError", error)
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("content", "answer"), [(b"content", "content"), (None, "DataError 503 Server Error")]
)
def test_ranks_of_a_node_download_once(tmp_path, empty_home, server, content, answer):
    server.content = content
    ranks = [
        subprocess.Popen(
            [
                *(sys.executable, "-c", DOWNLOADER, server.url),
                hashlib.sha256(content or b"").hexdigest(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
            cwd=pathlib.Path(__file__).parents[2],
        )
        for _ in range(3)
    ]
    for rank in ranks:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "ready\n"
    for rank in ranks:
        assert rank.stdin is not None
        rank.stdin.write("go\n")
        rank.stdin.flush()
    answers = [rank.communicate(timeout=20)[0].strip() for rank in ranks]
    assert [given[: len(answer)] for given in answers] == [answer] * 3
    assert server.requests == 1


# --- CIFAR-10 in Keras' cache: pickles that are read and never run -------------------------------


def cifar10_batch(images, labels):
    """A batch file as CIFAR-10's authors wrote it: protocol 2 of Python 2's pickle."""
    pixels = images.transpose(0, 3, 1, 2).tobytes()
    groups = (labels[start : start + 1000] for start in range(0, len(labels), 1000))
    return b"".join(
        (
            b"\x80\x02}q\x01(U\x0bbatch_labelq\x02U\x15training batch 1 of 5q\x03",
            b"U\x06labelsq\x04]q\x05",
            *(b"(" + b"".join(b"K" + bytes([k]) for k in group) + b"e" for group in groups),
            b"U\x04dataq\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08",
            b"K\x00\x85U\x01b\x87Rq\t(K\x01J" + struct.pack("<i", len(images)) + b"M\x00\x0c\x86",
            b"cnumpy\ndtype\nq\nU\x02u1K\x00K\x01\x87Rq\x0b(K\x03U\x01|NNNJ\xff\xff\xff\xff",
            b"J\xff\xff\xff\xffK\x00tb\x89T" + struct.pack("<i", len(pixels)) + pixels + b"tb",
            b"U\tfilenamesq\x0c]q\r(U\x05a.pngU\x05b.pngeu.",
        )
    )


def test_a_batch_read_by_opcodes_is_what_unpickling_gives():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1500, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, 1500)
    content = cifar10_batch(images, labels)
    unpickled = pickle.loads(content, encoding="bytes")
    read_images, read_labels = sources._parse_cifar10_batch(content)
    np.testing.assert_array_equal(read_images, images)
    np.testing.assert_array_equal(read_labels, unpickled[b"labels"])
    rows = read_images.transpose(0, 3, 1, 2).reshape(1500, 3072)
    np.testing.assert_array_equal(rows, unpickled[b"data"])


@pytest.mark.parametrize("form", ["cifar-10-batches-py", "cifar-10-batches-py.tar.gz"])
def test_cifar10_is_read_from_keras_cache(empty_home, small_cifar10, form):
    cache = empty_home / ".keras" / "datasets"
    x_train, y_train = small_cifar10["x_train"], small_cifar10["y_train"]
    cuts = [slice(0, 1), slice(1, 2), slice(2, 3), slice(3, 4), slice(4, 6)]
    files = {
        f"data_batch_{number}": cifar10_batch(x_train[cut], y_train[cut])
        for number, cut in enumerate(cuts, start=1)
    }
    files["test_batch"] = cifar10_batch(small_cifar10["x_test"], small_cifar10["y_test"])
    if form.endswith(".tar.gz"):
        with tarfile.open(cache / form, "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    else:
        (cache / form).mkdir()
        for name, content in files.items():
            (cache / form / name).write_bytes(content)
    loaded = data.load("cifar10")
    for key, array in small_cifar10.items():
        np.testing.assert_array_equal(getattr(loaded, key), array)


def test_pickles_in_keras_cache_are_never_run(empty_home, malicious):
    folder = empty_home / ".keras" / "datasets" / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(malicious))
    with pytest.raises(DataError, match=r"test_batch|cannot be read|not that of"):
        sources._read_keras(folder, "cifar10", sources.ARRAY_KEYS)
