"""`python -m bnnlib laplace`: a finished run's network with a posterior, as a run of its own."""

import hashlib
import sys

import pytest

from bnnlib.analysis import runs
from bnnlib.errors import RecordError
from bnnlib.inference import prediction, restore
from bnnlib.launch import command
from bnnlib.record import branch
from bnnlib.record.predictions import read_predictions
from bnnlib.record.schema import read_file, read_record
from tests.conftest import BIN

pytestmark = [pytest.mark.ranks, pytest.mark.timeout(900)]
PARAMETERS = {"dataset": "tiny", "epochs": 2, "seed": 4}
PAIRS = [word for name, value in PARAMETERS.items() for word in ("-p", name, str(value))]
TRAIN = [sys.executable, "-m", "bnnlib", "train", *PAIRS]
LAPLACE = [sys.executable, "-m", "bnnlib", "laplace"]


def contents(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def group(launch, tmp_path_factory):
    """A run of one rank, its two Laplace runs made by two ranks, and one by `laplace: true`."""
    group = tmp_path_factory.mktemp("runs") / "group"
    source = group / "CNN_FC"
    model = ["-p", "model", "CNN_FC"]
    launched = [launch(*TRAIN, *model, "-p", "run_dir", source, timeout=300)]
    before = contents(source)
    launched += [
        launch(BIN / "mpiexec", "-n", "2", *LAPLACE, source, timeout=300),
        launch(*LAPLACE, source, "--predict-with", "probit", timeout=300),
        launch(
            *[*TRAIN, *model, "-p", "run_dir", group / "at_once", "-p", "laplace", "true"],
            timeout=300,
        ),
    ]
    for each in launched:
        assert each.returncode == 0, each.stdout + each.stderr
    assert contents(source) == before  # the finished run is left as it is
    return group


def test_the_new_record_is_a_run_like_any(group):
    old, new = (read_file(group / name) for name in ("CNN_FC", "CNN_FC-laplace"))
    assert new["status"] == "finished"
    differ = {n for n in new["parameters"] if new["parameters"][n] != old["parameters"][n]}
    assert differ == {"laplace", "on_rank_change", "run_dir"}
    assert [attempt["ranks"] for attempt in new["attempts"]] == [1, 2]
    assert [event["event"] for event in new["history"]] == ["laplace", "continued"]
    assert read_record(group / "CNN_FC-laplace")["ranks"] == 1  # that trained
    for metric in ("images_per_second", "train_nll", "steps_done", "bytes_a_step"):
        assert new["metrics"][metric] == old["metrics"][metric]
    assert new["metrics"]["laplace_prior_precision"] > 0
    assert new["metrics"]["nll"] != old["metrics"]["nll"]
    names = {path.name for path in (group / "CNN_FC-laplace").iterdir()}
    assert names == {"checkpoints", "laplace.npz", "predictions.npz", "run.json", "steps.jsonl"}


def test_laplace_after_training_is_laplace_in_the_same_run(group):
    later, at_once = (read_file(group / name)["metrics"] for name in ("CNN_FC-laplace", "at_once"))
    for metric in ("nll", "ece", "laplace_prior_precision", "laplace_log_marginal_likelihood"):
        assert later[metric] == pytest.approx(at_once[metric], rel=1e-5)
    assert later["accuracy"] == at_once["accuracy"]


def test_restore_gives_the_network_with_its_posterior(group):
    _, dataset, network = restore(group / "CNN_FC-laplace")
    again = prediction.predict(network, dataset, dataset.x_test, 30, 4)
    recorded = read_predictions(group / "CNN_FC-laplace")[0]
    assert again.mean_probs == pytest.approx(recorded.mean_probs, abs=1e-6)
    assert again.expected_entropy == pytest.approx(recorded.expected_entropy, abs=1e-5)


def test_tables_show_each_beside_the_others(group):
    names = runs.named(runs.load(group)).set_index("run_id")["model"]
    assert names.to_dict() == {
        "CNN_FC": "CNN_FC",
        "CNN_FC-laplace": "CNN_FC laplace(True)",
        "CNN_FC-laplace-probit": "CNN_FC predict_with(probit) laplace(True)",
        "at_once": "CNN_FC laplace(True)",
    }


def test_the_same_command_again_changes_nothing(group, launch):
    before = contents(group)
    again = launch(*LAPLACE, group / "CNN_FC", timeout=300)
    assert again.returncode == 0, again.stderr
    assert contents(group) == before


def test_what_cannot_be_fitted_leaves_no_directory(launch, tmp_path):
    source = tmp_path / "group" / "BNN"
    trained = launch(*TRAIN, "-p", "model", "BNN_FC_flip", "-p", "run_dir", source, timeout=300)
    assert trained.returncode == 0, trained.stderr
    refused = launch(*LAPLACE, source, timeout=300)
    assert refused.returncode == 1
    assert "BNN_FC_flip has a posterior already" in refused.stderr
    assert [path.name for path in source.parent.iterdir()] == ["BNN"]


def test_a_branch_of_what_is_no_finished_run_is_refused(group, tmp_path):
    with pytest.raises(RecordError, match="no readable run record"):
        command.laplace(tmp_path)
    with pytest.raises(RecordError, match="has laplace = True already"):
        branch.experiment_of(group / "at_once", "laplace", laplace=True)
