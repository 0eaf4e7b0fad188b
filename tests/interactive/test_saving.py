"""A notebook that JupyterLab has saved is no change to git, unless its reader has changed it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bnnlib.interactive.saving import tell_git

ROOT = Path(__file__).parents[2]
# What JupyterLab notes down of the kernel, in the words of ipykernel.
KERNEL = {
    **{"name": "python", "version": "3.11.2", "mimetype": "text/x-python"},
    **{"file_extension": ".py", "nbconvert_exporter": "python", "pygments_lexer": "ipython3"},
    "codemirror_mode": {"name": "ipython", "version": 3},
}


@pytest.fixture
def git(tmp_path, monkeypatch):
    """git in a small repository with this one's notebook, filter and settings, as a lab has it."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    (tmp_path / "notebooks").mkdir()
    shutil.copy(ROOT / "notebooks" / "05_draws.ipynb", tmp_path / "notebooks" / "a.ipynb")

    def run(*words: str) -> str:
        own = ("-c", "user.name=reader", "-c", "user.email=reader@example.org")
        command = ["git", *own, *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout

    run("init", "--quiet")
    run("add", ".")
    run("commit", "--quiet", "--message", "as they are stored")
    lab = "source jobs/lab.sh && notebooks_in_git"
    subprocess.run(["bash", "-c", lab], cwd=tmp_path, check=True)
    return run


def test_what_a_run_leaves_is_no_change_and_a_readers_own_change_is_one(git, tmp_path):
    path = tmp_path / "notebooks" / "a.ipynb"
    nb = json.loads(path.read_text())
    nb["metadata"]["language_info"] = KERNEL
    cell = next(cell for cell in nb["cells"] if cell["cell_type"] == "code")
    cell |= {"execution_count": 3, "metadata": cell["metadata"] | {"execution": {"x": "now"}}}
    cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["seen\n"]}]
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + "\n")
    tell_git(path)
    assert git("status", "--porcelain") == ""
    assert "seen" in path.read_text()

    path.write_text(path.read_text().replace("**Question.**", "**Another.**"))
    tell_git(path)
    assert git("status", "--porcelain") == " M notebooks/a.ipynb\n"


def test_outside_of_a_repository_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "a.ipynb").write_text("{}")
    tell_git(tmp_path / "a.ipynb")
    assert os.listdir(tmp_path) == ["a.ipynb"]
