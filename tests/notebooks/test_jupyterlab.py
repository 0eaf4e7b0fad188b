"""04_interactive in a real JupyterLab, read and run by a real browser.

What a reader sees is tested: a picture that changes while two MPI engines train, a button that
stops them, and numbers that are those of the batch run. Needs Chromium (Debian's package
`chromium`, or the path of another in BNN_CHROMIUM) and is skipped without it.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from bnnlib.record.logs import read_steps
from bnnlib.record.schema import read_record

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: make env")

ROOT = Path(__file__).parents[2]
NOTEBOOK = "notebooks/04_interactive.ipynb"
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = os.environ.get("BNN_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.long,
    pytest.mark.timeout(960),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]

# Parameters of the notebook, as they are written there: long enough to be watched, with few draws.
GIVEN = {
    "model": '"BNN_FC_flip"',
    "dataset": '"digits"',
    "epochs": "50",
    "batch_size": "64",
    "log_every": "5",
    "test_draws": "3",
    "more_epochs": "2",
}
# Steps of the first run: 4,000 images, 2 ranks, whole batches only.
STEPS = int(GIVEN["epochs"]) * (4000 // (2 * int(GIVEN["batch_size"])))


def without_token(folder: Path) -> int | None:
    """The status that JupyterLab gives somebody who has no token; None while it does not listen."""
    for told in folder.glob("jupyter-*"):
        address = told.read_text().strip().partition("/lab")[0]
        try:
            return urllib.request.urlopen(f"{address}/api/contents", timeout=20).status
        except urllib.error.HTTPError as error:
            return error.code
        except (OSError, ValueError):  # not yet, or the file is not yet written
            return None
    return None


def git(root: Path, *words: str) -> str:
    """What a git command prints, by a user of its own, with the programs of this environment."""
    own = ("-c", "user.name=reader", "-c", "user.email=reader@example.org")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["git", *own, *words],
        cwd=root,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.fixture
def lab(tmp_path):
    """JupyterLab as jobs/local/jupyter.sh starts it; its address with its token."""
    root = tmp_path / "lab"
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    nb = json.loads((root / NOTEBOOK).read_text())
    (cell,) = [c for c in nb["cells"] if "parameters" in c["metadata"].get("tags", [])]
    text = "".join(cell["source"])
    for name, value in GIVEN.items():
        text, found = re.subn(rf"(?m)^({name}: \w+ = ).*?(  #|$)", rf"\g<1>{value}\g<2>", text)
        assert found == 1, name
    cell["source"] = text.splitlines(keepends=True)
    stored = json.dumps(nb, indent=1, ensure_ascii=False)  # as the repository stores them
    (root / NOTEBOOK).write_text(f"{stored}\n")
    shutil.copytree(ROOT / "jobs", root / "jobs")
    for name in (".gitattributes", ".gitignore"):
        shutil.copy(ROOT / name, root / name)
    git(root, "init", "--quiet")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "--message", "the notebooks as they are stored")
    own = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {"IPYTHONDIR": str(tmp_path / "ipython"), "BNN_ENV": sys.prefix}
    own["JUPYTERLAB_SETTINGS_DIR"] = str(tmp_path / "settings")
    no_news = tmp_path / "settings" / "@jupyterlab" / "apputils-extension"
    no_news.mkdir(parents=True)
    (no_news / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')
    # JupyterLab takes cells that are out of view out of the page; the test looks at all of them.
    all_cells = tmp_path / "settings" / "@jupyterlab" / "notebook-extension"
    all_cells.mkdir()
    (all_cells / "tracker.jupyterlab-settings").write_text('{"windowingMode": "none"}')
    outer = ("HOROVOD_", "PMI_", "BNN_RUN_DIR")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(outer)}
    with open(tmp_path / "lab.log", "w") as log:
        server = psutil.Popen(
            ["jobs/local/jupyter.sh"],
            cwd=root,
            env=inherited | own | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 90
        while (answer := without_token(root / "runs")) is None:
            assert server.poll() is None, (tmp_path / "lab.log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "lab.log").read_text()
            time.sleep(0.3)
        assert answer == 403
        (told,) = (root / "runs").glob("jupyter-*")
        assert told.stat().st_mode & 0o077 == 0
        address = told.read_text().strip()
        pattern = rf"http://127\.0\.0\.1:\d+/lab/tree/{NOTEBOOK}\?token=\w{{48}}"
        assert re.fullmatch(pattern, address)
        yield address
    finally:
        family = [server, *server.children(recursive=True)]
        server.terminate()
        _, left = psutil.wait_procs(family, timeout=45)
        for process in left:
            process.kill()
    assert not left, "JupyterLab has ended and left processes behind"


@pytest.fixture
def page(lab):
    with sync_api.sync_playwright() as playwright:
        # Chromium's own sandbox does not work for root, as whom containers run.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        one = browser.new_page(viewport={"width": 1280, "height": 1600})
        one.set_default_timeout(90_000)
        one.goto(lab)
        one.wait_for_selector(".jp-Notebook .jp-Cell")
        # The kernel is there and idle before anything is asked of it.
        one.locator("#jp-main-statusbar", has_text="| Idle").wait_for()
        yield one
        browser.close()


def menu(page, name: str, command: str) -> None:
    """Chooses a menu's entry, as a reader would."""
    page.locator(".lm-MenuBar-item", has_text=re.compile(rf"^{name}$")).click()
    page.locator(f'.lm-Menu-item[data-command="{command}"]').click()


def run_all(page) -> None:
    menu(page, "Run", "runmenu:run-all")


def pictures(page) -> list[str]:
    """A checksum of each picture that is shown now, from top to bottom."""
    sources = page.eval_on_selector_all(
        ".jp-OutputArea-output img", "images => images.map(image => image.src)"
    )
    return [hashlib.sha256(source.encode()).hexdigest() for source in sources]


def shown_at(page) -> Path:
    """A picture of the whole page, beside the test's other files."""
    path = Path(tempfile.mkdtemp(prefix="jupyterlab-")) / "page.png"
    page.screenshot(path=path)
    return path


def wait(page, until: Callable[[], bool], what: str, timeout: float = 300) -> None:
    """Waits, and fails with what the page shows as soon as a cell has failed."""
    deadline = time.monotonic() + timeout
    while not until():
        failed = page.locator('.jp-OutputArea-output[data-mime-type*="error"]').all_inner_texts()
        assert not failed, failed
        if time.monotonic() >= deadline:
            picture = shown_at(page)
            pytest.fail(f"no {what} in {timeout:.0f} s; the page is shown in {picture}")
        page.wait_for_timeout(100)


def status(directory: Path) -> str:
    return read_record(directory)["status"]


def is_through(page) -> bool:
    """Whether no cell runs or waits to."""
    return page.locator(".jp-InputPrompt", has_text="[*]").count() == 0


def steps_done(directory: Path) -> int:
    lines = read_steps(directory) if (directory / "steps.jsonl").exists() else []
    return lines[-1].step if lines else 0


def watch_and_stop(page, directory: Path, number: int) -> None:
    """Sees the curves of a training move, then stops it."""
    wait(page, lambda: len(pictures(page)) > number, "picture")
    states: list[tuple[str, int]] = []
    for _ in range(3):
        known = {state for state, _ in states}
        wait(page, lambda k=known: pictures(page)[number] not in k, "change")  # type: ignore[misc]
        states.append((pictures(page)[number], steps_done(directory)))
    assert states[0][1] <= states[1][1] < states[2][1] < STEPS
    page.locator("button.jupyter-button", has_text="Stop").click()
    ended = page.locator(".jp-OutputArea-output", has_text="Training has ended here")
    wait(page, lambda: ended.count() > number, "end after a click on Stop")
    assert steps_done(directory) < STEPS


def assert_equal_runs(ours: Path, batch: Path) -> None:
    """The same parameters, curves, predictions and scores, to the last bit."""
    assert read_record(ours)["threads"] == read_record(batch)["threads"]
    lines = [
        [(line.step, line.loss, line.nll, line.kl) for line in read_steps(directory)]
        for directory in (ours, batch)
    ]
    assert lines[0] == lines[1]
    assert lines[0][-1][0] == STEPS
    arrays = [np.load(directory / "predictions.npz") for directory in (ours, batch)]
    assert arrays[0].files == arrays[1].files
    for name in arrays[0].files:
        assert np.array_equal(arrays[0][name], arrays[1][name]), name
    for score in ("accuracy", "nll", "ece", "brier", "kl"):
        values = [read_record(one)["metrics"][score] for one in (ours, batch)]
        assert values[0] == values[1]


def save(page, saved: Path) -> None:
    before = saved.stat().st_mtime_ns  # JupyterLab saves by itself now and then
    menu(page, "File", "docmanager:save")
    wait(page, lambda: saved.stat().st_mtime_ns > before, "saved notebook")
    wait(page, lambda: saved.read_text().endswith("}\n"), "end of the saved notebook", 20)


def test_opening_and_saving_a_notebook_is_no_change_to_git(page, tmp_path):
    root = tmp_path / "lab"
    committed = (root / NOTEBOOK).read_text()
    save(page, root / NOTEBOOK)
    # JupyterLab has noted the kernel down, which git does not see.
    assert (root / NOTEBOOK).read_text() != committed
    wait(page, lambda: git(root, "status", "--porcelain") == "", "clean status", 60)
    # A change of the reader's own is seen.
    text = (root / NOTEBOOK).read_text()
    (root / NOTEBOOK).write_text(text.replace("**Question.**", "**Another.**"))
    assert git(root, "status", "--porcelain") == f" M {NOTEBOOK}\n"


def test_a_reader_watches_stops_goes_on_and_gets_the_batch_run(page, launch, tmp_path):
    # In the repository of the notebook that is open; this library lies elsewhere.
    interactive = tmp_path / "lab" / "runs" / "interactive"
    first, second = interactive / "first", interactive / "first-then-0.0001"
    run_all(page)
    for number, directory in enumerate((first, second)):
        watch_and_stop(page, directory, number)
        wait(page, lambda d=directory: status(d) == "stopped", "stopped run")
    wait(page, lambda: is_through(page), "last cell")
    stopped_at = steps_done(first)

    # Once more from the top, with a cluster of its own: the run goes on to its end.
    run_all(page)
    for directory in (first, second):
        wait(page, lambda d=directory: status(d) == "finished", "finished run")
    wait(page, lambda: is_through(page), "last cell")
    assert len(pictures(page)) == 3
    assert 0 < stopped_at < steps_done(first) == STEPS
    assert tmp_path / "lab" / read_record(second)["continues"]["run"] == first

    # The pictures are in the saved notebook; the button, which does nothing there, is not.
    saved = tmp_path / "lab" / NOTEBOOK
    save(page, saved)
    assert saved.read_text().count('"image/png"') == 3
    assert f"Training has ended here: {STEPS} steps" in saved.read_text()
    assert "widget-view" not in saved.read_text()
    wait(page, lambda: git(tmp_path / "lab", "status", "--porcelain") == "", "clean status", 60)

    if where := os.environ.get("BNN_SCREENSHOT"):  # cut to the training: figures/lab
        page.locator(".jp-OutputArea-output img").first.scroll_into_view_if_needed()
        page.screenshot(path=where)

    batch = tmp_path / "batch"
    given = {name: json.loads(GIVEN[name]) for name in GIVEN if name != "more_epochs"}
    done = launch(
        *("mpiexec", "-n", "2", "papermill", ROOT / "notebooks" / "01_train.ipynb"),
        *(f"rank0:{batch / 'train.ipynb'}", "--engine", "spmd", "-y", json.dumps(given)),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert_equal_runs(first, batch)
