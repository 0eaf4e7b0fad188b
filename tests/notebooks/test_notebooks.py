"""Every notebook of the repository is executed on tiny data, and stored as the rules say.

`01_train` runs here alone: under papermill's own kernel engine, and cell by cell in a live kernel
as JupyterLab does it. The study of the fixture has run it at 2 ranks under the engine spmd.
"""

import dataclasses
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml
from jupyter_client.manager import start_new_kernel

from bnnlib.experiment import Experiment
from bnnlib.record.logs import read_steps
from bnnlib.record.schema import read_record
from jobs.local.pages import Executed, build
from tests.analysis.records import random_probs, write_run
from tests.notebooks.pages_read import fetched

ROOT = Path(__file__).parents[2]
# Stored notebooks wherever they lie; those below runs/ are executed copies.
NOTEBOOKS = sorted(
    path
    for folder in ROOT.iterdir()
    if folder.is_dir() and not folder.name.startswith(".") and folder.name != "runs"
    if not (folder / "pyvenv.cfg").exists()  # an environment beside .venv has others' notebooks
    for path in folder.rglob("*.ipynb")
    if ".ipynb_checkpoints" not in path.parts
)
TRAIN = ROOT / "notebooks" / "01_train.ipynb"


def alone(launch, study, folder: Path) -> Path:
    """01_train alone, under papermill's own kernel engine: its record lies beside it."""
    folder /= "new"  # `rank0:` makes it, which papermill itself does not
    executed = folder / "train.ipynb"
    parameters = ["-f", "jobs/params/tiny.yaml", "-p", "model", "BNN_FC_flip"]
    output = f"rank0:{executed}"
    done = launch("papermill", TRAIN, output, *parameters)
    assert done.returncode == 0, done.stderr
    return executed


def watched(launch, study, folder: Path) -> Path:
    """04_interactive on two engines, with the parameters that one run of the study has."""
    executed, first = folder / "interactive.ipynb", folder / "first"
    tiny = yaml.safe_load((ROOT / "jobs" / "params" / "tiny.yaml").read_text())
    ours = {name: tiny.pop(name) for name in ("dataset", "epochs", "batch_size", "log_every")}
    ours |= {"test_draws": tiny.pop("test_draws"), "others": tiny}
    ours |= {"model": "BNN_FC_flip", "run_dir": str(first), "more_epochs": 1}
    words = ("papermill", ROOT / "notebooks" / "04_interactive.ipynb", executed)
    done = launch(*words, "-y", json.dumps(ours), timeout=300)
    assert done.returncode == 0, done.stderr
    return executed


def inside(launch, study, folder: Path) -> Path:
    """05_draws on one of the study's runs, its figures elsewhere."""
    executed = folder / "draws.ipynb"
    run = study.runs / "BNN_FC_flip"
    parameters = ["-p", "run", run, "-p", "figures", folder, "-p", "draws", "5"]
    done = launch("papermill", ROOT / "notebooks" / "05_draws.ipynb", executed, *parameters)
    assert done.returncode == 0, done.stderr
    return executed


def of_records(question: str, name: str = "") -> Callable[..., Path]:
    """A question's notebook, on the compact records that git keeps."""

    def run(launch, study, folder: Path) -> Path:
        executed = folder / "question.ipynb"
        records = ROOT / "figures" / question / "records.jsonl.gz"
        source = next((ROOT / "notebooks").glob(f"*_{name or question}.ipynb"))
        done = launch("papermill", source, executed, "-p", "records", records)
        assert done.returncode == 0, done.stderr
        return executed

    return run


def from_tables(launch, study, folder: Path) -> Path:
    """11_simulation on the committed tables, its figures elsewhere."""
    executed = folder / "simulation.ipynb"
    notebook = ROOT / "notebooks" / "11_simulation.ipynb"
    words = ["-p", "simulation", ROOT / "figures" / "simulation", "-p", "figures", folder]
    done = launch("papermill", notebook, executed, *words)
    assert done.returncode == 0, done.stderr
    return executed


def varied(launch, study, folder: Path) -> Path:
    """06_gradient_variance on the tables that git keeps; its own rows are of few tiny images."""
    executed = folder / "gradient_variance.ipynb"
    ours = {"dataset": "tiny", "images": 16, "batches": 3, "draws": 2}
    notebook = ROOT / "notebooks" / "06_gradient_variance.ipynb"
    done = launch("papermill", notebook, executed, "-y", json.dumps(ours))
    assert done.returncode == 0, done.stderr
    return executed


def pruned(launch, study, folder: Path) -> Path:
    """07_pruning on the tables that git keeps."""
    executed = folder / "pruning.ipynb"
    notebook = ROOT / "notebooks" / "07_pruning.ipynb"
    done = launch("papermill", notebook, executed, "-p", "figures", ROOT / "figures" / "pruning")
    assert done.returncode == 0, done.stderr
    return executed


# How each notebook is executed; a notebook that is missing here fails a test.
HOW: dict[str, Callable[..., Path]] = {
    "01_train.ipynb": alone,
    "02_calibration.ipynb": lambda launch, study, folder: study.runs / "02_calibration.ipynb",
    "03_scaling.ipynb": lambda launch, study, folder: (
        study.root / "runs" / "scaling_tiny" / "03_scaling.ipynb"
    ),
    "04_interactive.ipynb": watched,
    "05_draws.ipynb": inside,
    "06_gradient_variance.ipynb": varied,
    "07_pruning.ipynb": pruned,
    "08_prior_and_temperature.ipynb": of_records("prior_temperature", "prior_and_temperature"),
    "09_uncertainty_decomposition.ipynb": of_records("uncertainty_decomposition"),
    "10_convergence.ipynb": of_records("convergence"),
    "11_simulation.ipynb": from_tables,
}


@pytest.fixture(scope="session")
def executed(launch, study, tmp_path_factory) -> dict[str, Path]:
    """The executed copy of each notebook."""
    return {
        name: run(launch, study, tmp_path_factory.mktemp(Path(name).stem))
        for name, run in HOW.items()
    }


def read(path: Path):
    return nbformat.read(path, as_version=4)


def outputs(nb) -> list:
    return [output for cell in nb.cells for output in cell.get("outputs", [])]


def of_type(nb, mime: str) -> list[str]:
    """The content of every output that has a representation of this type."""
    return [o.data[mime] for o in outputs(nb) if mime in o.get("data", {})]


def text(nb, stream: str) -> str:
    return "".join(o.text for o in outputs(nb) if o.get("name") == stream)


# ------------------------------------------------------------------------------------------- site


def test_the_pages_of_executed_notebooks_fetch_nothing(executed, tmp_path):
    done = {name: Executed(path, "On tiny data.") for name, path in executed.items()}
    site = build(done, tmp_path / "site")
    assert [fetched(page) for page in site[1:]] == [[]] * len(executed)
    (train,) = (page.read_text() for page in site if page.name == "01_train.html")
    assert "data:image/png" in train


# ----------------------------------------------------------------------------------------- stored


def test_every_notebook_has_a_way_to_be_executed():
    assert [path.name for path in NOTEBOOKS] == sorted(HOW)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_is_stored_without_what_a_run_leaves(path):
    nb = read(path)
    nbformat.validate(nb)
    assert set(nb.metadata) == {"kernelspec", "language_info"}
    for cell in nb.cells:
        assert set(cell.metadata) <= {"tags"}
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_starts_with_a_question_and_has_one_parameters_cell(path):
    nb = read(path)
    assert nb.cells[0].cell_type == "markdown"
    assert nb.cells[0].source.startswith(f"# {int(path.name[:2])} ")
    assert re.search(r"^\*\*Question\.\*\* .*\?$", nb.cells[0].source, re.MULTILINE)
    tagged = [cell for cell in nb.cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    for line in tagged[0].source.splitlines():
        assert re.fullmatch(r"\w+: \w+(\[\w+\])? = \S.*  # \S.*", line), line


def test_the_parameters_cell_is_the_experiment():
    cells = [c for c in read(TRAIN).cells if "parameters" in c.metadata.get("tags", [])]
    assert cells[0].source == Experiment.parameters_cell()


def test_papermills_help_is_the_manual(launch):
    done = launch("papermill", "--help-notebook", TRAIN)
    assert done.returncode == 0, done.stderr
    manual = " ".join(done.stdout.split())
    for field in dataclasses.fields(Experiment):
        default = getattr(Experiment(), field.name)
        literal = json.dumps(default) if isinstance(default, str | list) else repr(default)
        heading, meaning = field.metadata["heading"], field.metadata["meaning"]
        meaning = f"[{heading}] {meaning}" if heading else meaning
        assert f" {field.name}: {field.type} (default {literal}) {meaning}" in manual


# --------------------------------------------------------------------------------------- executed


@pytest.mark.ranks
@pytest.mark.parametrize("name", sorted(HOW))
def test_a_notebook_runs_to_its_end(executed, name):
    nb = read(executed[name])
    assert not [o for o in outputs(nb) if o.output_type == "error"]
    assert nb.metadata.papermill.exception is None
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))


def assert_shows_a_training(nb, ranks: int, steps: int) -> None:
    """Figures, tables, text and the progress bar are there, each once: no rank but 0 shows any."""
    figures, tables = of_type(nb, "image/png"), of_type(nb, "text/html")
    assert len(figures) == len(set(figures)) >= 2  # images of the data set, training curves
    assert len(tables) == len(set(tables)) >= 2  # the network, the scores
    for column in ("accuracy", "nll", "brier", "ece", "images_per_second"):
        assert column in tables[1]
    shown = text(nb, "stdout")
    assert shown.startswith("record: ")
    assert re.match(r"accuracy .* images/s, record: ", shown.rstrip().splitlines()[-1])
    first = next(o for o in outputs(nb) if o.get("name") == "stderr")
    assert "step/s" in first.text  # no red box before the training's bar
    assert shown.count("rank(s) on") == 1
    assert f"{ranks} rank(s) on" in shown
    assert shown.count("predictions.npz") == 1
    bar = text(nb, "stderr").split("\n")[0].split("\r")[-1]  # what JupyterLab shows of it
    assert re.match(rf"100%\|█+\| {steps}/{steps} \[", bar)


@pytest.mark.ranks
def test_training_alone_under_a_kernel(executed):
    nb = read(executed["01_train.ipynb"])
    assert_shows_a_training(nb, ranks=1, steps=16)  # 256 images, 32 a step, 2 epochs
    record = read_record(executed["01_train.ipynb"].parent)
    assert (record["status"], record["ranks"], record["launcher"]) == ("finished", 1, "alone")


@pytest.mark.ranks
@pytest.mark.parametrize("model", ["CNN_FC", "BNN_conv_flip"])
def test_training_at_two_ranks(study, model):
    nb = read(study.runs / model / "train.ipynb")
    assert not [o for o in outputs(nb) if o.output_type == "error"]
    assert_shows_a_training(nb, ranks=2, steps=8)
    record = read_record(study.runs / model)
    assert (record["status"], record["ranks"], record["launcher"]) == ("finished", 2, "mpich")
    # The notebook's table is the record's.
    accuracy = f"{record['metrics']['accuracy']:.4f}"
    assert accuracy in of_type(nb, "text/html")[1]


@pytest.mark.ranks
def test_interactive_training_is_the_batch_run_bit_for_bit(study, executed):
    batch, ours = study.runs / "BNN_FC_flip", executed["04_interactive.ipynb"].parent / "first"
    records = [read_record(directory) for directory in (batch, ours)]
    for record in records:
        assert (record["status"], record["ranks"], record["launcher"]) == ("finished", 2, "mpich")
        del record["parameters"]["run_dir"]
        times = ("images_per_second", "train_seconds", "timed_seconds", "evaluation_seconds")
        for name in (*times, "step_ms_p10", "step_ms_p50", "step_ms_p90"):
            assert record["metrics"].pop(name) > 0
    for key in ("parameters", "threads", "metrics", "evaluation"):
        assert records[0][key] == records[1][key]
    lines = [
        [(line.step, line.loss, line.nll, line.kl) for line in read_steps(directory)]
        for directory in (batch, ours)
    ]
    assert lines[0] == lines[1]
    arrays = [np.load(directory / "predictions.npz") for directory in (batch, ours)]
    assert arrays[0].files == arrays[1].files
    for name in arrays[0].files:
        assert np.array_equal(arrays[0][name], arrays[1][name])


@pytest.mark.ranks
def test_interactive_training_goes_on_with_another_learning_rate(executed):
    folder = executed["04_interactive.ipynb"].parent
    first, second = folder / "first", folder / "first-then-0.0001"
    record = read_record(second)
    assert record["status"] == "finished"
    assert record["continues"] == {"run": str(first), "step": 8}
    assert record["parameters"]["learning_rate"] == 0.0001
    # 8 steps of the first run; 4 more, of which the last closes the epoch.
    assert [line.step for line in read_steps(first)] == [2, 4, 6, 8]
    assert [line.step for line in read_steps(second)] == [10, 12]
    nb = read(executed["04_interactive.ipynb"])
    assert len(of_type(nb, "image/png")) == 3  # two trainings, and draws of four images
    assert any("Training has ended here: 8 steps" in one for one in of_type(nb, "text/markdown"))


@pytest.mark.ranks
def test_the_comparison_shows_the_eight_runs_and_its_figures(study, executed):
    nb = read(executed["02_calibration.ipynb"])
    models = sorted(path.parent.name for path in study.runs.glob("*/run.json"))
    assert len(models) == 8
    comparison = of_type(nb, "text/html")[0]
    for model in models:
        name = model.replace("_ivon", " IVON")
        assert re.search(rf"\b{re.escape(name)}(?!\w)", comparison), name
    figures = sorted((study.runs / "figures").glob("*.png"))
    assert len(of_type(nb, "image/png")) >= len(figures) >= 3
    for figure in figures:
        assert figure.with_suffix(".csv").stat().st_size > 0
        origin = json.loads(figure.with_suffix(".json").read_text())
        for model in models:
            assert model in json.dumps(origin)


@pytest.mark.ranks
def test_the_scaling_study_shows_predictions_apart_from_measurements(study, executed):
    nb = read(executed["03_scaling.ipynb"])
    figures = {path.stem for path in (study.root / "runs/scaling_tiny/figures").glob("*.png")}
    assert {"ladder", "breakdown", "theta", "predictions", "calibration_against_ranks"} <= figures
    predictions = pd.read_csv(study.root / "runs/scaling_tiny/figures/predictions.csv")
    assert predictions[~predictions.measured].ranks.max() == 4096
    # Measured is what the records hold, and never more ranks than there are cores.
    assert set(predictions[predictions.measured].ranks) <= {2}
    said = "\n".join(of_type(nb, "text/markdown"))
    assert "no measurement: " in said  # the profiled runs, at least
    assert "predicted at 4,096 nodes" in said


@pytest.mark.ranks
def test_the_simulation_is_held_against_what_was_measured(executed):
    nb = read(executed["11_simulation.ipynb"])
    assert len(of_type(nb, "image/png")) == 2
    said = "\n".join(of_type(nb, "text/markdown"))
    assert re.search(
        r"\*\*Two nodes\.\*\* .* ms a step .*\*\*At [0-9,]+ nodes\*\*", said, re.DOTALL
    )


@pytest.mark.ranks
def test_the_gradients_variance_is_told_by_the_tables_that_git_keeps(executed):
    nb = read(executed["06_gradient_variance.ipynb"])
    assert len(of_type(nb, "image/png")) >= 3
    said = "\n".join(of_type(nb, "text/markdown"))
    needless = pd.read_csv(ROOT / "figures" / "gradient_variance" / "needless.csv")
    dense = needless[(needless.network == "BNN_FC") & (needless.bayesian_layers == "first")]
    first = dense[(dense.global_batch == 64) & (dense.state == "initial")].iloc[0]
    assert f"initial {math.ceil(first.ranks)} [" in said
    assert "predicted for BNN_FC_nonflip on 8: " in text(nb, "stdout")


@pytest.mark.ranks
def test_pruning_is_told_by_the_tables_that_git_keeps(executed):
    nb = read(executed["07_pruning.ipynb"])
    assert len(of_type(nb, "image/png")) == 3
    said = "\n".join(of_type(nb, "text/markdown"))
    table = pd.read_csv(ROOT / "figures" / "pruning" / "differences.csv")
    trap = table[(table.what == "trap less zero") & (table.network == "BNN_FC_flip")]
    trap = trap[(trap.score == "accuracy") & (trap.share == 0.8)]
    for mean in trap["mean"]:
        assert f"80 % {mean:+.4f} [".replace("-", "−") in said
    assert "the claim is a loss of 7 points" in said


# ------------------------------------------------------------------------------------------- live


class Live:
    """A kernel that cells are sent to one at a time, as JupyterLab does."""

    def __init__(self, folder: Path) -> None:
        self.manager, self.client = start_new_kernel(startup_timeout=60, cwd=str(folder))

    def run(self, source: str, interrupt_at: str | None = None) -> tuple[str, str, list[dict]]:
        """Run one cell; interrupt it once it has shown what the pattern finds.

        Returns:
            The status, all text it showed, and its displays by type.
        """
        shown: list[str] = []
        displays: list[dict] = []
        interrupted: list[float] = []

        def hook(message) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                shown.append(content["text"])
            elif message["msg_type"] == "error":
                shown.append("\n".join(content["traceback"]))
            elif message["msg_type"] in ("display_data", "execute_result"):
                displays.append(content["data"])
            if interrupt_at and not interrupted and re.search(interrupt_at, "".join(shown)):
                interrupted.append(time.monotonic())
                self.manager.interrupt_kernel()

        reply = self.client.execute_interactive(
            source, allow_stdin=False, timeout=120, output_hook=hook
        )
        return reply["content"]["status"], "".join(shown), displays


@pytest.fixture
def live(tmp_path):
    kernel = Live(tmp_path)
    try:
        yield kernel
    finally:
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_every_notebook_settles_its_paths_first(path):
    """Before it takes one of its parameters for a path."""
    parameters, first, *_ = [c.source for c in read(path).cells if c.cell_type == "code"]
    assert ": str" in parameters
    assert "\nsettle_paths()  # in JupyterLab, too, paths are from the repository's top" in first
    before = first.split("settle_paths()  #")[0]
    assert "Path(" not in before
    assert "load(" not in before


def test_in_jupyterlab_runs_are_found_and_made_in_the_repository(tmp_path):
    """A kernel of JupyterLab starts in notebooks/, where there are no runs and should be none."""
    (tmp_path / "jobs" / "local").mkdir(parents=True)
    (tmp_path / "jobs" / "local" / "site.sh").touch()
    (folder := tmp_path / "notebooks").mkdir()
    labels = np.arange(40) % 3
    write_run(tmp_path / "runs/digits/one", "CNN_FC", 0, {"test": (random_probs(0), labels)})
    kernel = Live(folder)
    try:
        calibration = [c.source for c in read(NOTEBOOKS[1]).cells if c.cell_type == "code"]
        for source in calibration[:2]:
            assert kernel.run(source)[0] == "ok"
        assert kernel.run("print(*group.models)")[1] == "CNN_FC\n"
        # As a kernel of its own would start.
        assert kernel.run(f"%reset -f\nimport os\nos.chdir({str(folder)!r})")[0] == "ok"
        train = [c.source for c in read(TRAIN).cells if c.cell_type == "code"]
        small = "model, dataset, steps, threads = 'CNN_FC', 'tiny', 1, 1"
        for source in (f"{train[0]}\n{small}", *train[1:3]):
            status, shown, _ = kernel.run(source)
            assert status == "ok", shown
    finally:
        kernel.client.stop_channels()
        kernel.manager.shutdown_kernel(now=True)
    assert [path.name for path in tmp_path.glob("runs/single/tiny/*/run.json")] == ["run.json"]
    assert not list(folder.iterdir())


def test_cell_by_cell_with_an_interruption_and_twice(live, tmp_path):
    cells = [cell.source for cell in read(TRAIN).cells if cell.cell_type == "code"]
    steps = 1600
    edits = f"model, dataset, batch_size, steps = 'CNN_FC', 'tiny', 32, {steps}\ntest_draws = 2"
    cells[0] += f"\n{edits}\nrun_dir = {str(tmp_path / 'run')!r}"
    training = next(i for i, source in enumerate(cells) if "Trainer(" in source)

    for source in cells[:training]:
        assert live.run(source)[0] == "ok", source
    assert read_record(tmp_path / "run")["status"] == "running"
    status, shown, _ = live.run(cells[training], interrupt_at=rf"\b[1-9]\d*/{steps}\b")
    assert status == "error"
    assert "KeyboardInterrupt" in shown
    record = read_record(tmp_path / "run")
    assert (record["status"], record["error"]["type"]) == ("failed", "KeyboardInterrupt")
    done = len(read_steps(tmp_path / "run"))
    assert 0 < done < steps / 8

    # The same cell again goes on from the last checkpoint, not from the start.
    status, shown, _ = live.run(cells[training])
    assert status == "ok", shown
    first = re.search(rf"(\d+)/{steps}\b", shown)
    assert first is not None
    assert 8 * (done - 1) <= int(first[1]) < steps
    images, tables = 0, 0
    for source in cells[training + 1 :]:
        status, shown, displays = live.run(source)
        assert status == "ok", shown
        images += sum("image/png" in display for display in displays)
        tables += sum("text/html" in display for display in displays)
    assert images >= 1
    assert tables >= 1
    record = read_record(tmp_path / "run")
    assert (record["status"], record["error"]) == ("finished", None)
    lines = (tmp_path / "run" / "steps.jsonl").read_bytes()
    assert [line.step for line in read_steps(tmp_path / "run")] == list(
        range(8, steps + 1, 8)  # an epoch is 8 steps, and ends a line
    )

    # All cells once more, from the top: nothing is trained, and the answer is the same.
    for source in cells:
        status, shown, _ = live.run(source)
        assert status == "ok", shown
    assert (tmp_path / "run" / "steps.jsonl").read_bytes() == lines
    again = read_record(tmp_path / "run")
    assert again["status"] == "finished"
    for metric in ("accuracy", "nll", "ece", "images_per_second", "train_seconds"):
        assert again["metrics"][metric] == record["metrics"][metric]
    assert again["started"] == record["started"]
