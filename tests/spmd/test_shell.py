"""Cells run in the engine's shell as in a kernel: every magic, and the event loop."""

import os
import subprocess
import sys
from typing import Any

import nbformat
import pytest

from tests.spmd.notebooks import outputs, write_notebook

# A harmless use of each line magic, in an order in which none spoils the next.
LINE_MAGICS = {
    "lsmagic": "%lsmagic",
    "quickref": "%quickref",
    "magic": "%magic -rest",
    "alias": "%alias greet echo hello\n%greet",
    "unalias": "%unalias greet",
    "alias_magic": "%alias_magic t timeit",
    "rehashx": "%rehashx",
    "autoawait": "%autoawait",
    "autocall": "%autocall 0",
    "automagic": "%automagic on",
    "autosave": "%autosave 60",
    "config": "%config",
    "bookmark": "%bookmark here\n%bookmark -l\n%bookmark -d here",
    "mkdir": "%mkdir below",
    "cd": "%cd below\n%cd ..",
    "pushd": "%pushd below",
    "dirs": "%dirs",
    "popd": "%popd",
    "dhist": "%dhist",
    "pwd": "%pwd",
    "cat": "%cat text.txt",
    "cp": "%cp text.txt copy.txt",
    "mv": "%mv copy.txt moved.txt",
    "rm": "%rm moved.txt",
    "rmdir": "%rmdir below",
    "ls": "%ls",
    "lf": "%lf text.txt",
    "lk": "%lk",
    "ldir": "%ldir",
    "lx": "%lx",
    "ll": "%ll missing",
    "clear": "%clear",
    "less": "%less text.txt",
    "more": "%more text.txt",
    "man": "%man missing-page",
    "page": "%page 'some text'",
    "pycat": "%pycat script.py",
    "load": "%load script.py",
    "loadpy": "%loadpy script.py",
    "run": "%run script.py",
    "macro": "%macro again 1",
    "store": "%store",
    "rerun": "%rerun 1",
    "recall": "%recall 1",
    "rep": "%rep 1",
    "save": "%save -f saved.py 1",
    "history": "%history 1",
    "hist": "%hist -n 1",
    "notebook": "%notebook saved.ipynb",
    "edit": "%edit script.py",
    "ed": "%ed script.py",
    "doctest_mode": "%doctest_mode\n%doctest_mode",
    "env": "%env SHOWN=1\n%env SHOWN",
    "set_env": "%set_env SHOWN=2",
    "gui": "%gui",
    "matplotlib": "%matplotlib inline",
    "pylab": "%pylab inline --no-import-all",
    "load_ext": "%load_ext autoreload",
    "reload_ext": "%reload_ext autoreload",
    "unload_ext": "%unload_ext autoreload",
    "logstart": "%logstart -q log.py",
    "logstate": "%logstate",
    "logoff": "%logoff",
    "logon": "%logon",
    "logstop": "%logstop",
    "pdef": "%pdef function",
    "pdoc": "%pdoc function",
    "pfile": "%pfile function",
    "pinfo": "%pinfo function",
    "pinfo2": "%pinfo2 function",
    "psource": "%psource function",
    "psearch": "%psearch func*",
    "pprint": "%pprint\n%pprint",
    "precision": "%precision 3\n3.14159\n%precision",
    "code_wrap": "%code_wrap",
    "prun": "%prun -q 1 + 1",
    "sc": "%sc text=echo one",
    "sx": "%sx echo one",
    "system": "%system echo one",
    "tb": "%tb",
    "time": "%time 1 + 1",
    "timeit": "%timeit -n1 -r1 1 + 1",
    "who": "%who int",
    "who_ls": "%who_ls int",
    "whos": "%whos int",
    "xmode": "%xmode Context",
    "colors": "%colors Neutral",
    "killbgscripts": "%killbgscripts",
    "xdel": "%xdel number",
    "reset_selective": "%reset_selective -f number",
    "reset": "%reset -f out",
    "pdb": "%pdb off",
    "connect_info": "%connect_info",
}
CELL_MAGICS = {
    "!": "%%!\necho one",
    "HTML": "%%HTML\n<b>one</b>",
    "html": "%%html\n<b>one</b>",
    "SVG": "%%SVG\n<svg></svg>",
    "svg": "%%svg\n<svg></svg>",
    "javascript": "%%javascript\n1",
    "js": "%%js\n1",
    "latex": "%%latex\n$x$",
    "markdown": "%%markdown\n*one*",
    "bash": "%%bash\necho one",
    "sh": "%%sh\necho one",
    "script": "%%script bash\necho one",
    "python": "%%python\nprint('one')",
    "python3": "%%python3\nprint('one')",
    "system": "%%system\necho one",
    "sx": "%%sx\necho one",
    "capture": "%%capture\nprint('one')",
    "code_wrap": "%%code_wrap --list",
    "file": "%%file written.txt\none",
    "writefile": "%%writefile written.txt\none",
    "prun": "%%prun -q\n1 + 1",
    "time": "%%time\n1 + 1",
    "timeit": "%%timeit -n1 -r1\n1 + 1",
    "debug": "%%debug --help",
}
SKIPPED = {
    "debug": "opens a debugger",
    "subshell": "lists a kernel's threads for cells that run beside one another: there is one here",
    "pastebin": "sends text to the internet",
    "pip": "installs packages",
    "uv": "installs packages",
    "conda": "installs packages",
    "mamba": "installs packages",
    "micromamba": "installs packages",
    "qtconsole": "opens a window",
    "perl": "another language",
    "pypy": "another interpreter",
    "python2": "another interpreter",
    "ruby": "another language",
}
# What these print differs from run to run (times, process ids), or names the kernel's own parts.
ONLY_WHETHER_IT_WORKS = {"time", "timeit", "prun", "lf", "pfile", "config", "connect_info", "dhist"}
LOOP = [
    "import asyncio\n"
    "steps = []\n"
    "async def work():\n"
    "    for step in range(3):\n"
    "        steps.append(step)\n"
    "        await asyncio.sleep(0)\n"
    "task = asyncio.create_task(work())\n"
    "steps",
    "steps, task.done()",  # it went on between the cells
    "await asyncio.sleep(0.01)\nprint('awaited')\nsteps",
    "async def numbers():\n    yield 1\n[number async for number in numbers()]",
    "asyncio.run(work())",  # not inside a running loop
    "left = asyncio.create_task(asyncio.sleep(1e6))",
    "async with asyncio.timeout(10):\n    1 / 0",
]
WIDGET = "import ipywidgets\nslider = ipywidgets.IntSlider(3)\nslider.value = 4\nslider"
FIRST = 3 + len(LOOP) + 1  # cells before those of the magics


@pytest.fixture(scope="module")
def in_both(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A notebook of all of this, after a kernel and the engine have run it."""
    cells: list[str | tuple[str, ...]] = [
        ("def function():\n    '''Some help.'''\nnumber = 1", "raises-exception"),
        "m = get_ipython().magics_manager.lsmagic()\nprint(*sorted(m['line']))",
        "print(*sorted(m['cell']))",
        *((source, "raises-exception") for source in (*LOOP, WIDGET)),
        *((source, "raises-exception") for source in CELL_MAGICS.values()),
        *((source, "raises-exception") for source in LINE_MAGICS.values()),
    ]
    executed = {}
    for engine in ("nbclient", "spmd"):
        folder = tmp_path_factory.mktemp(engine) / "study"
        folder.mkdir()
        (folder / "text.txt").write_text("some text\n")
        (folder / "script.py").write_text("print('from a script')\n")
        source = write_notebook(folder.parent / "in.ipynb", *cells)
        output = folder.parent / "out.ipynb"
        words = ["papermill", source, output, "--engine", engine, "--cwd", folder]
        # A process of its own, whose streams and directory a magic may change; it fails where a
        # magic does.
        subprocess.run(
            [sys.executable, "-m", *map(str, words), "--no-progress-bar"],
            env=os.environ | {"IPYTHONDIR": str(tmp_path_factory.mktemp("ipython"))},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=300,
        )
        nb = nbformat.read(output, as_version=4)
        nb.cells = [cell for cell in nb.cells if cell.cell_type == "code"]
        executed[engine] = nb
    return executed


def shown(cell: Any, folder: str) -> tuple[list[str], str]:
    """The errors of a cell, and what it has printed, without what names the folder."""
    errors = [output["ename"] for output in outputs(cell) if output["output_type"] == "error"]
    text = "".join(o["text"] for o in outputs(cell) if o.get("name") == "stdout")
    return errors, text.replace(folder, "folder")


def test_every_magic_of_a_kernel_works_as_there(in_both: dict[str, Any]) -> None:
    kernel, ours = in_both["nbclient"].cells, in_both["spmd"].cells
    for which, table in ((1, LINE_MAGICS), (2, CELL_MAGICS)):
        expected = outputs(kernel[which])[0]["text"].split()
        assert outputs(ours[which])[0]["text"].split() == expected
        assert set(expected) - set(table) - set(SKIPPED) == set(), "magics that nothing tries"
    differences = []
    names = [*(f"%%{name}" for name in CELL_MAGICS), *(f"%{name}" for name in LINE_MAGICS)]
    for name, expected, cell in zip(names, kernel[FIRST:], ours[FIRST:], strict=True):
        a, b = shown(expected, "nbclient0"), shown(cell, "spmd0")
        if name.lstrip("%") in ONLY_WHETHER_IT_WORKS:
            a, b = (a[0], ""), (b[0], "")
        if a != b:
            differences.append((name, a, b))
    assert not differences


def test_cells_await_and_leave_tasks_to_the_event_loop_as_in_a_kernel(
    in_both: dict[str, Any],
) -> None:
    kernel, ours = (in_both[engine].cells[3 : FIRST - 1] for engine in ("nbclient", "spmd"))
    for expected, cell in zip(kernel, ours, strict=True):
        told, shows = (
            [(o["output_type"], o.get("ename"), o.get("data")) for o in outputs(c)]
            for c in (expected, cell)
        )
        assert shows == told, cell.source
    assert ours[1].outputs[0].data["text/plain"] == "([0, 1, 2], True)"


def test_widgets_leave_their_state_in_the_notebook_as_in_a_kernel(in_both: dict[str, Any]) -> None:
    states = []
    for engine in ("nbclient", "spmd"):
        nb = in_both[engine]
        widgets = nb.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
        shown = nb.cells[FIRST - 1].outputs[0].data["application/vnd.jupyter.widget-view+json"]
        slider = widgets[shown["model_id"]]
        states.append((slider["model_name"], slider["state"]["value"], len(widgets)))
    assert states[0][:2] == ("IntSliderModel", 4)
    assert states[1] == states[0]
