"""Checkpoints give back the same bits; damaged ones are passed over, failed writes leave none."""

import errno
import os
import socket
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bnnlib.errors import RecordError
from bnnlib.experiment import Experiment
from bnnlib.record import checkpoint, files


def state(step: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(step)
    return {
        "layer0/mean": rng.normal(size=(5, 3)).astype(np.float32),
        "layer0/bias": np.array([np.nan, -0.0, np.inf, 1e-45], np.float32),
        "adam1/0": rng.normal(size=(2, 2)),
        "empty": np.zeros((0, 3), np.float32),
        "step": np.asarray(step),
    }


def assert_bitwise_equal(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> None:
    assert list(left) == list(right)
    for name in left:
        assert (left[name].dtype, left[name].shape) == (right[name].dtype, right[name].shape)
        assert left[name].tobytes() == right[name].tobytes(), name


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------- written and read


def test_a_state_comes_back_to_the_bit(tmp_path):
    path = checkpoint.save(tmp_path / "a" / "checkpoints", state(7))
    assert path == tmp_path / "a" / "checkpoints" / "step-000000007.npz"
    assert_bitwise_equal(checkpoint.load(path), state(7))
    latest = checkpoint.latest(path.parent)
    assert latest is not None
    assert_bitwise_equal(latest, state(7))


def test_there_is_none_where_nothing_was_written(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    assert checkpoint.latest(tmp_path / "missing") is None


def test_only_the_newest_are_kept_in_order_of_step(tmp_path):
    for step in (9, 10, 100):
        checkpoint.save(tmp_path, state(step))
    assert checkpoint.KEEP == Experiment().keep_checkpoints == 2
    assert names(tmp_path) == ["step-000000010.npz", "step-000000100.npz"]
    latest = checkpoint.latest(tmp_path)
    assert latest is not None
    assert latest["step"] == 100


def test_as_many_as_asked_are_kept(tmp_path):
    for step in range(1, 6):
        checkpoint.save(tmp_path, state(step), keep=3)
    assert names(tmp_path) == [f"step-{step:09d}.npz" for step in (3, 4, 5)]
    checkpoint.save(tmp_path, state(6), keep=1)
    assert names(tmp_path) == ["step-000000006.npz"]


def test_saving_a_step_again_replaces_it(tmp_path):
    checkpoint.save(tmp_path, state(3) | {"adam1/0": np.zeros(1)})
    path = checkpoint.save(tmp_path, state(3))
    assert names(tmp_path) == [path.name]
    assert_bitwise_equal(checkpoint.load(path), state(3))


# ---------------------------------------------------------------------------------------- damaged


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    at = content.index(state(2)["adam1/0"].tobytes())  # npz does not compress
    content[at] ^= 1
    path.write_bytes(content)


def without_step(path: Path) -> None:
    np.savez(path, **{name: value for name, value in state(2).items() if name != "step"})


def with_pickle(path: Path) -> None:
    np.savez(path, **state(2), hidden=np.array([{"a": 1}], dtype=object))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_byte,
        without_step,
        with_pickle,
        replace_by_folder,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no zip"),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
    ],
    ids=[
        *("truncated", "flipped byte", "without step", "with pickle", "a folder"),
        *("empty", "no zip", "a beginning"),
    ],
)
def test_a_damaged_newest_is_passed_over_and_named(tmp_path, caplog, damage):
    checkpoint.save(tmp_path, state(1))
    newest = checkpoint.save(tmp_path, state(2))
    damage(newest)
    with pytest.raises(RecordError, match=newest.name):
        checkpoint.load(newest)
    with caplog.at_level("WARNING", logger="bnnlib.record.checkpoint"):
        latest = checkpoint.latest(tmp_path)
    assert latest is not None
    assert_bitwise_equal(latest, state(1))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(newest) in record.getMessage()


@pytest.mark.parametrize("keep", [1, 2])
def test_beside_a_damaged_newer_file_new_checkpoints_stay(tmp_path, keep):
    checkpoint.save(tmp_path, state(2))
    damaged = tmp_path / "step-000000009.npz"
    damaged.write_bytes(b"half")
    found = checkpoint.latest(tmp_path, set_aside=True)
    assert found is not None
    assert found["step"] == 2
    for step in (4, 6):
        path = checkpoint.save(tmp_path, state(step), keep)
        assert path.exists()
    kept = ["step-000000004.npz", "step-000000006.npz"][-keep:]
    assert names(tmp_path) == ["damaged-step-000000009.npz", *kept]
    assert (tmp_path / "damaged-step-000000009.npz").read_bytes() == b"half"


def test_what_was_just_written_is_never_removed(tmp_path):
    (tmp_path / "step-000000009.npz").write_bytes(b"half")  # that nobody has looked at
    path = checkpoint.save(tmp_path, state(4), keep=1)
    assert names(tmp_path) == [path.name]


def test_looking_for_the_newest_changes_nothing(tmp_path):
    checkpoint.save(tmp_path, state(2))
    (tmp_path / "step-000000009.npz").write_bytes(b"half")
    checkpoint.latest(tmp_path)
    assert names(tmp_path) == ["step-000000002.npz", "step-000000009.npz"]


def test_two_hosts_have_different_temporary_names(tmp_path, monkeypatch):
    """Process ids repeat between hosts that share a file system, and between containers."""
    monkeypatch.setattr(os, "getpid", lambda: 7)
    seen = []
    for host in ("a", "b", "b"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        files.write_atomically(tmp_path / "run.json", lambda file: seen.append(file.name))
    assert len(set(seen)) == 3
    assert ".run.json.a-7-" in seen[0]


def test_nothing_readable_is_as_nothing_there_but_told(tmp_path, caplog):
    for step in (1, 2):
        (tmp_path / f"step-{step:09d}.npz").write_bytes(b"")
    with caplog.at_level("WARNING", logger="bnnlib.record.checkpoint"):
        assert checkpoint.latest(tmp_path) is None
    assert len(caplog.records) == 2


def test_any_flipped_bit_is_an_error_or_changes_nothing(tmp_path):
    small = {"layer0/mean": np.array([1.5, -2.0], np.float32), "step": np.asarray(3)}
    path = checkpoint.save(tmp_path, small)
    content = path.read_bytes()
    refused = 0
    for at in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[at] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                found = checkpoint.load(path)
            except RecordError:
                refused += 1
            else:  # a bit that no reader looks at, such as a file's time in the archive
                assert_bitwise_equal(found, small)
    assert refused > len(content)


def test_any_truncation_is_an_error(tmp_path):
    path = checkpoint.save(tmp_path, {"step": np.asarray(3)})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(RecordError):
            checkpoint.load(path)


def test_read_npz_says_what_it_looked_for(tmp_path):
    with pytest.raises(
        RecordError, match=r"missing\.npz: no readable predictions \(.*No such file"
    ):
        files.read_npz(tmp_path / "missing.npz", "predictions")


# ---------------------------------------------------------------------------------- failed writes


class FullDisk:
    """A file whose disk is full after some bytes."""

    def __init__(self, file, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data) -> int:
        self.room -= len(bytes(data))
        if self.room < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.file.write(data)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


def no_space(*arguments, **keywords):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_write(monkeypatch):
    def open_full(path, mode="r", **options):
        return FullDisk(Path(path).open(mode, **options), room=100)

    monkeypatch.setattr(files, "open", open_full, raising=False)


def fail_open(monkeypatch):
    monkeypatch.setattr(files, "open", no_space, raising=False)


def fail_fsync(monkeypatch):
    monkeypatch.setattr(os, "fsync", no_space)  # of the file, before it takes its name


def fail_rename(monkeypatch):
    monkeypatch.setattr(os, "replace", no_space)


@pytest.mark.parametrize("failure", [fail_write, fail_open, fail_fsync, fail_rename])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failure):
    old = checkpoint.save(tmp_path, state(1))
    before = old.read_bytes()
    with monkeypatch.context() as patched:
        failure(patched)
        with pytest.raises(RecordError) as error:
            checkpoint.save(tmp_path, state(1) | {"adam1/0": np.ones(500)})
        with pytest.raises(RecordError):
            checkpoint.save(tmp_path, state(2))
    assert str(error.value) == (
        f"{old}: could not be written (No space left on device); what was there before is "
        "unharmed. Make room or choose another place (run_dir, for a run), and start the same "
        "command again"
    )
    assert names(tmp_path) == [old.name]
    assert old.read_bytes() == before
    assert checkpoint.save(tmp_path, state(2)).exists()  # with room again it goes on


def test_an_error_without_a_system_message_is_told(tmp_path):
    def short(file):
        raise OSError("100 requested and 10 written")  # as numpy's tofile does

    with pytest.raises(RecordError, match=r"written \(100 requested and 10 written\)"):
        files.write_atomically(tmp_path / "a.npz", short)
    assert names(tmp_path) == []


def test_another_error_of_the_writer_is_its_own_and_leaves_nothing(tmp_path):
    def interrupted(file):
        file.write(b"half")
        raise KeyboardInterrupt

    (tmp_path / "a.json").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "a.json", interrupted)
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"old"


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "runs").write_bytes(b"")
    with pytest.raises(
        RecordError, match=r"could not be written \((File exists|Not a directory)\)"
    ):
        checkpoint.save(tmp_path / "runs" / "checkpoints", state(1))
    with pytest.raises(RecordError, match="could not be written"):
        checkpoint.save(tmp_path / "runs", state(1))


def test_the_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (happened.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda a, b: (happened.append("replace"), replace(a, b)))
    files.write_atomically(tmp_path / "a", lambda file: file.write(b"x"))
    # The file's content, then its name, then the folder that holds the name.
    assert happened == ["fsync", "replace", "fsync"]


def test_what_a_killed_writer_leaves_is_never_taken_for_a_checkpoint(tmp_path):
    checkpoint.save(tmp_path, state(1))
    code = """
        import os, signal, sys
        from pathlib import Path
        from bnnlib.record import checkpoint, files

        def die(file):
            file.write(b"PK half a checkpoint")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        files.write_atomically(Path(sys.argv[1]) / "step-000000002.npz", die)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)])
    assert done.returncode == -9
    (left,) = [name for name in names(tmp_path) if name != "step-000000001.npz"]
    assert left.startswith(".step-000000002.npz.")
    latest = checkpoint.latest(tmp_path)
    assert latest is not None
    assert latest["step"] == 1
    # Nor does it count among those that are kept.
    checkpoint.save(tmp_path, state(3))
    assert [name for name in names(tmp_path) if name != left] == [
        "step-000000001.npz",
        "step-000000003.npz",
    ]


def test_a_checkpoint_is_a_plain_npz(tmp_path):
    path = checkpoint.save(tmp_path, state(1))
    assert zipfile.ZipFile(path).testzip() is None
    with np.load(path) as file:
        assert sorted(file.files) == sorted(state(1))
