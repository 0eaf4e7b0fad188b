"""Of many ranks that run one notebook, rank 0 writes it."""

from pathlib import Path

import pytest
from papermill.iorw import papermill_io


def test_only_rank_0_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a" / "b.ipynb"
    monkeypatch.setenv("PMI_RANK", "1")
    papermill_io.write("one", f"rank0:{path}")
    assert not path.parent.exists()
    monkeypatch.setenv("PMI_RANK", "0")
    papermill_io.write("zero", f"rank0:{path}")
    assert path.read_text() == "zero"
    assert papermill_io.read(f"rank0:{path}") == "zero"
    assert papermill_io.listdir(f"rank0:{path.parent}") == [str(path)]
    assert papermill_io.pretty_path(f"rank0:{path}") == f"rank0:{path}"
