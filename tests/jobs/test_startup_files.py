"""strace's lines are counted by place; the lines are strace 6.1's own."""

import os
import shutil
import subprocess
import sys

import pytest

from jobs.bench import startup_files
from jobs.bench.startup_files import Operation, count, operations

LINES = """\
execve("/s/bin/python", ["python", "a, b"], 0x7ffd1 /* 50 vars */) = 0
openat(AT_FDCWD</work>, "/s/lib/os.py", O_RDONLY|O_CLOEXEC) = 3</s/lib/os.py>
openat(AT_FDCWD</work>, "/s/lib/none.py", O_RDONLY) = -1 ENOENT (No such file or directory)
newfstatat(AT_FDCWD</work>, "jobs", {st_mode=S_IFDIR|0755, st_size=4096, ...}, 0) = 0
newfstatat(3</s/lib/os.py>, "", {st_mode=S_IFREG|0644, st_size=39504, ...}, AT_EMPTY_PATH) = 0
getdents64(4</s/lib>, 0x55d /* 3 entries */, 32768) = 72
readlink("../s/lib/os.py", 0x7ffe, 4096) = -1 EINVAL (Invalid argument)
+++ exited with 0 +++
"""


def test_each_line_is_one_operation_on_one_path():
    assert list(operations(LINES.splitlines(), "/work")) == [
        Operation("execve", "/s/bin/python", True),
        Operation("openat", "/s/lib/os.py", True),
        Operation("openat", "/s/lib/none.py", False),
        Operation("newfstatat", "/work/jobs", True),
        Operation("newfstatat", "/s/lib/os.py", True),
        Operation("getdents64", "/s/lib", True),
        Operation("readlink", "/s/lib/os.py", False),
    ]


def test_operations_are_counted_where_their_path_lies():
    found = [*operations(LINES.splitlines(), "/work"), Operation("openat", "/s2/a", True)]
    assert count(found, {"shared": "/s", "checkout": "/work", "node": "/n"}) == {
        "operations, shared": 6,
        "failed, shared": 2,
        "files, shared": 1,
        "operations, checkout": 1,
        "failed, checkout": 0,
        "files, checkout": 0,
        "operations, node": 0,
        "failed, node": 0,
        "files, node": 0,
    }


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
def test_straces_own_lines_are_read(tmp_path):
    (tmp_path / "here.txt").write_text("x")
    words = [*startup_files.STRACE.split(), "-o", str(tmp_path / "trace")]
    code = "open('here.txt').read(); import os; os.path.exists('gone.txt'); os.listdir('.')"
    done = subprocess.run([*words, sys.executable, "-S", "-c", code], cwd=tmp_path, check=False)
    if done.returncode:
        pytest.skip("strace may not trace here")
    (trace,) = tmp_path.glob("trace.*")
    found = list(operations(trace.read_text().splitlines(), str(tmp_path)))
    assert Operation("openat", f"{tmp_path}/here.txt", True) in found
    assert [one.found for one in found if one.path == f"{tmp_path}/gone.txt"] == [False]
    assert any(one.call == "getdents64" and one.path == os.path.realpath(tmp_path) for one in found)
