"""Commit, versions and command as they are, and no more of the environment than is named."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bnnlib import launcher
from bnnlib.record import provenance

SECRET = "hunter2-e5b0c1"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A git repository with one commit, which provenance takes for the library's own checkout."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)  # set where the tests run inside a git hook
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "--quiet")
    (folder / "a.txt").write_text("one\n")
    git(folder, "add", "a.txt")
    git(folder, "commit", "--quiet", "--message", "first")
    monkeypatch.setattr(provenance, "_REPOSITORY", folder)
    return folder


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_commit_and_whether_the_tree_is_clean(repository):
    head = git(repository, "rev-parse", "HEAD")
    found = provenance.collect()
    assert len(head) == 40
    assert (found["commit"], found["clean"]) == (head, True)
    (repository / "a.txt").write_text("two\n")
    found = provenance.collect()
    assert (found["commit"], found["clean"]) == (head, False)
    git(repository, "commit", "--quiet", "--all", "--message", "second")
    found = provenance.collect()
    assert found["commit"] == git(repository, "rev-parse", "HEAD") != head
    assert found["clean"] is True


def test_a_file_that_git_does_not_know_makes_the_tree_unclean(repository):
    (repository / "b.txt").write_text("new\n")
    assert provenance.collect()["clean"] is False


def test_a_repository_without_a_commit_has_none(repository):
    git(repository, "update-ref", "-d", "HEAD")
    found = provenance.collect()
    assert (found["commit"], found["clean"]) == (None, False)


def test_a_checkout_is_asked_and_never_written(repository):
    index = repository / ".git" / "index"
    os.utime(repository / "a.txt", (1e9, 1e9))  # a status that may write notes it in the index
    before = index.read_bytes()
    assert provenance.collect()["clean"] is True
    # A run killed while it was written would leave index.lock, and git would refuse the user.
    assert index.read_bytes() == before


def test_outside_a_checkout_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "_REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    found = provenance.collect()
    assert found["commit"] is None
    assert found["clean"] is None


def test_the_commit_of_a_foreign_repository_around_the_library_is_not_its_own(
    repository, monkeypatch
):
    installed = repository / ".venv" / "lib" / "site-packages"
    installed.mkdir(parents=True)
    monkeypatch.setattr(provenance, "_REPOSITORY", installed)
    found = provenance.collect()
    assert (found["commit"], found["clean"]) == (None, None)


def test_without_git_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = provenance.collect()
    assert found["commit"] is None
    assert found["clean"] is None


def test_a_git_that_does_not_answer_is_not_waited_for(monkeypatch):
    def hang(words, timeout, **options):
        raise subprocess.TimeoutExpired(words, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    assert provenance.collect()["commit"] is None


def test_the_environment_is_not_dumped(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", SECRET)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("KMP_AFFINITY", raising=False)
    found = provenance.collect()
    assert found["environment"]["OMP_NUM_THREADS"] == "3"
    assert "KMP_AFFINITY" not in found["environment"]
    assert set(found["environment"]) <= set(provenance.ENVIRONMENT)
    text = json.dumps(found)
    assert SECRET not in text
    assert "SECRET_TOKEN" not in text


def test_versions_are_of_the_packages_that_are_installed():
    versions = provenance.collect()["versions"]
    assert list(versions) == list(provenance.PACKAGES)
    for name in ("numpy", "tensorflow", "bnnlib"):
        # TensorFlow's package may be tensorflow-cpu.
        (package,) = set(importlib.metadata.packages_distributions().get(name, [name]))
        assert versions[name] == importlib.metadata.version(package)


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGES", ("no-such-package",))
    assert provenance.collect()["versions"] == {"no-such-package": None}


def test_python_platform_and_launcher():
    found = provenance.collect()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["platform"] == platform.platform()
    assert (found["launcher"], found["job_id"]) == (launcher.name(), launcher.job_id())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["/home/me/.venv/bin/python", "/home/me/.venv/bin/papermill", "a.ipynb", "rank0:b"],
            "papermill a.ipynb rank0:b",
        ),
        (["/usr/bin/python3", "-m", "bnnlib.training", "--flagfile=a.cfg"], None),
        (["python", "study.py", "-p", "dataset", "my data.npz"], None),
        (["/home/me/.venv/bin/python"], "python"),
    ],
)
def test_the_command_can_be_typed_again(monkeypatch, words, expected):
    monkeypatch.setattr(sys, "orig_argv", words)
    if expected is None:
        expected = " ".join(
            [Path(words[0]).name, *(f"'{word}'" if " " in word else word for word in words[1:])]
        )
    assert provenance.command() == expected


def test_the_command_without_pythons_own_words(monkeypatch):
    monkeypatch.delattr(sys, "orig_argv")
    monkeypatch.setattr(sys, "argv", ["/opt/study.py", "a; b"])
    assert provenance.command() == "study.py 'a; b'"


def test_the_command_of_a_real_process():
    code = "from bnnlib.record import provenance; print(provenance.command())"
    done = subprocess.run([sys.executable, "-c", code, "x"], capture_output=True, text=True)
    name = Path(sys.executable).name
    assert done.stdout.strip() == f"{name} -c '{code}' x"


@pytest.mark.parametrize(
    ("program", "expected"),
    [("papermill", "papermill in.ipynb -p seed 1"), ("jupyter-lab", "jupyter kernel")],
)
def test_the_command_of_a_kernel_is_papermills_and_never_jupyters(tmp_path, program, expected):
    # A real parent of that name starts a process that was started as kernels are.
    child = (
        "import sys; sys.orig_argv = ['python', '-m', 'ipykernel_launcher', '-f', 'c.json'];"
        "from bnnlib.record import provenance; print(provenance.command())"
    )
    parent = tmp_path / "bin" / program
    parent.parent.mkdir()
    parent.write_text(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])\n"
    )
    words = ["in.ipynb", "-p", "seed", "1"] if program == "papermill" else [f"--token={SECRET}"]
    done = subprocess.run(
        [sys.executable, str(parent), *words], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_the_command_of_a_kernel_that_bnnlib_started_is_its_own(tmp_path):
    root = str(Path(provenance.__file__).parents[2])
    child = (
        "import sys; sys.orig_argv = ['python', '-m', 'ipykernel_launcher', '-f', 'c.json'];"
        f"sys.path[0] = {root!r};"
        "from bnnlib.record import provenance; print(provenance.command())"
    )
    package = tmp_path / "bnnlib"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {child!r}])\n"
    )
    words = [sys.executable, "-m", "bnnlib", "figures", "runs/digits"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    name = Path(sys.executable).name
    assert done.stdout.strip() == f"{name} -m bnnlib figures runs/digits"
