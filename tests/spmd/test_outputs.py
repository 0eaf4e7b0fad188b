"""What a cell shows lands in the notebook as a kernel's client would have written it."""

from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from papermill.exceptions import PapermillExecutionError

from tests.conftest import Launched
from tests.spmd.notebooks import execute, outputs, write_notebook

# Everything a kernel can leave in a notebook. (Both streams in one cell are left out: a kernel
# loses their order.)
KINDS: list[str | tuple[str, ...]] = [
    ("x = 1  # a number", "parameters"),
    "print('a'); print('b', end=''); print('c')\nx",
    "import sys; print('to stderr', file=sys.stderr)",
    "from IPython.display import HTML, clear_output, display\n"
    "import pandas as pd\n"
    "display(pd.DataFrame({'a': [1, 2]}))\n"
    "handle = display('first', display_id='h')\n"
    "pd.DataFrame({'b': [x]})",
    "handle.update('second')\n"
    "other = display(HTML('<b>0</b>'), display_id=True, metadata={'isolated': True})\n"
    "for i in range(3): other.update(HTML(f'<b>{i}</b>'))",
    "import matplotlib.pyplot as plt\n"
    "fig, ax = plt.subplots(figsize=(2, 1)); ax.plot([1, 2]); print('before the figure')",
    "plt.figure(figsize=(2, 1)); plt.plot([1, 3]); plt.show(); print('after the figure')",
    "print('gone'); display('gone'); clear_output(wait=True); print('kept'); display('kept')",
    "print('gone'); clear_output(); print('kept')",
    "x;",
    "%%capture captured\nprint('captured')",
    "captured.stdout",
    "!echo from a shell",
    "__name__, get_ipython() is not None, _i2, sorted(Out), sys.argv[0] != ''",
    "class Picture:\n"
    "    def _repr_png_(self): return b'\\x89PNG'\n"
    "    def __repr__(self): return 'Picture()'\n"
    "Picture()",
    "import threading\n"
    "thread = threading.Thread(target=print, args=('from a thread',))\n"
    "thread.start(); thread.join()",
    "import logging; logging.warning('logged')",
    "from pathlib import Path; Path.cwd().name",
    ("1 / 0", "raises-exception"),
    ("print('skipped')", "skip-execution"),
    "def f():\n    raise ValueError('bad value')\nprint('before')\nf()",
    "print('never')",
]


def test_the_executed_notebook_equals_a_kernels(tmp_path: Path) -> None:
    source = write_notebook(tmp_path / "kinds.ipynb", *KINDS)
    notebooks = []
    for engine in ("nbclient", "spmd"):
        output = tmp_path / f"{engine}.ipynb"
        with pytest.raises(PapermillExecutionError, match="bad value"):
            execute(source, output, engine, parameters={"x": 2}, cwd=tmp_path)
        notebooks.append(nbformat.read(output, as_version=4))
    kernel, ours = notebooks

    assert ours.metadata.language_info == kernel.metadata.language_info
    assert [cell.source for cell in ours.cells] == [cell.source for cell in kernel.cells]
    kinds = set()
    for expected, cell in zip(kernel.cells, ours.cells, strict=True):
        assert cell.metadata.tags == expected.metadata.tags
        if cell.cell_type == "code":
            assert cell.execution_count == expected.execution_count, cell.source
            assert outputs(cell) == outputs(expected), cell.source
            for key in ("status", "exception"):
                assert cell.metadata.papermill[key] == expected.metadata.papermill[key]
            kinds |= {output["output_type"] for output in outputs(cell)}
    assert kinds == {"stream", "display_data", "execute_result", "error"}


def test_progress_bars_are_text_and_keep_their_last_state_only(
    launch: Callable[..., Launched], tmp_path: Path
) -> None:
    source = write_notebook(
        tmp_path / "bar.ipynb",
        "from tqdm.auto import tqdm\n"
        "for _ in tqdm(range(3), bar_format='{n_fmt}/{total_fmt}', mininterval=0): pass",
    )
    # The command, with papermill's own bar, below which tqdm would draw the cell's.
    output = tmp_path / "out.ipynb"
    launched = launch("papermill", source, output, "--engine", "spmd", "--progress-bar")
    assert "3/3\n" in launched.stderr
    nb = nbformat.read(output, as_version=4)
    assert outputs(nb.cells[0]) == [{"output_type": "stream", "name": "stderr", "text": "3/3\n"}]
