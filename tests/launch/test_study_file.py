"""Study files: what they expand to, and what is refused before anything starts."""

from pathlib import Path

import pytest
import yaml

from bnnlib.errors import ExperimentError
from bnnlib.launch import study_file

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "jobs" / "studies").glob("*.yaml"))
TWO_PARTS = """
common: {dataset: tiny}
parts:
- group: weak
  ranks: [1, 2]
  common: {epochs: 3}
  grid: {model: [CNN_FC, BNN_FC_flip], noise_streams: [0, 1]}
- group: strong
  ranks: 2
  common: {learning_rate_scaling: none}
  grid: {model: CNN_FC, global_batch: 32}
  repeats: 2
  walltime: 00:20:00
"""


@pytest.fixture
def read(tmp_path):
    """Reads a study file of this text, or of these keys."""

    def run(told, **options):
        path = tmp_path / "study.yaml"
        path.write_text(told if isinstance(told, str) else yaml.safe_dump(told))
        return study_file.read(path, **options)

    return run


def test_every_combination_of_every_part(read):
    runs = read(TWO_PARTS)
    assert [str(run.directory) for run in runs] == [
        *(
            f"runs/weak/{model}-r{ranks}-noise_streams={noise}"
            for ranks in (1, 2)
            for model in ("CNN_FC", "BNN_FC_flip")
            for noise in (0, 1)
        ),
        "runs/strong/CNN_FC-r2-global_batch=32",
        "runs/strong/CNN_FC-r2-global_batch=32-repeat1",
    ]
    assert {run.experiment.dataset for run in runs} == {"tiny"}
    assert [run.experiment.epochs for run in runs] == [3] * 8 + [10] * 2
    last = runs[-1]
    assert (last.experiment.batch_size, last.experiment.learning_rate_scaling) == (16, "none")
    # YAML reads an unquoted walltime as seconds.
    assert (last.ranks, last.nodes, last.repeat, last.walltime) == (2, 0, 1, "00:20:00")
    assert study_file.hours(last.walltime) == pytest.approx(1 / 3)
    assert runs[0].walltime == study_file.DEFAULT_WALLTIME


def test_one_part_stands_at_the_top_and_one_value_needs_no_list(read):
    (run,) = read({"ranks": 2, "grid": {"model": "CNN_FC", "seed": 3}, "common": {"epochs": 2}})
    assert (run.experiment.model, run.experiment.seed, run.ranks) == ("CNN_FC", 3, 2)
    assert str(run.directory) == "runs/study/CNN_FC-r2-seed=3"  # the group is the file's name
    (run,) = read({"ranks": 1, "common": {"eval_sets": "shifts"}}, runs="elsewhere")
    assert run.experiment.eval_sets == ["shifts"]
    assert str(run.directory) == "elsewhere/study/BNN_conv_flip-r1"
    (run,) = read({"ranks": 1, "common": {"dataset": "mnist", "ood_sets": ["near", "far"]}})
    assert run.experiment.ood_sets == ["near", "far"]


def test_all_repeats_come_one_after_another(read):
    runs = read({"ranks": 1, "repeats": 2, "grid": {"seed": [0, 1]}})
    assert [(run.repeat, run.experiment.seed) for run in runs] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_nodes_are_times_what_a_node_holds_and_a_part_may_leave_its_ranks_to_the_launch(read):
    runs = read({"nodes": [1, 4]}, ranks_per_node=3)
    assert [(run.nodes, run.ranks) for run in runs] == [(1, 3), (4, 12)]
    assert [run.ranks for run in read({"group": "g"}, any_ranks=5)] == [5]


def test_a_part_says_its_own_in_place_of_the_files(read):
    told = {
        **{"group": "g", "ranks": [1, 2], "repeats": 2, "common": {"epochs": 3, "seed": 1}},
        "parts": [{"nodes": 1, "repeats": 1, "common": {"epochs": 4}}],
    }
    (run,) = read(told)
    assert (run.nodes, run.experiment.epochs, run.experiment.seed) == (1, 4, 1)


def test_a_name_is_safe_and_its_length_bounded(read):
    values = ["a b/c;d.npz", "x" * 300 + ".npz"]
    odd, long = read({"ranks": 1, "grid": {"dataset": values}})
    assert odd.directory.name == "BNN_conv_flip-r1-dataset=a_b_c_d.npz"
    assert len(long.directory.name) < 255


@pytest.mark.parametrize(
    "text",
    [
        "ranks: 1\ncommon:\ngrid: {model: CNN_FC}",
        "\ufeffranks: 1\ngrid: {model: CNN_FC}\nwalltime:\nrepeats:",
        "common:\ngroup: study\nparts:\n- {ranks: 1e0, common: , grid: {model: CNN_FC}}",
    ],
)
def test_an_empty_key_says_nothing_and_a_mark_before_the_text_neither(read, text):
    (run,) = read(text)
    assert str(run.directory) == "runs/study/CNN_FC-r1"


def test_an_empty_common_of_a_part_leaves_the_files(read):
    (run,) = read("common: {dataset: tiny}\nparts:\n- ranks: 1\n  common:")
    assert run.experiment.dataset == "tiny"


def test_values_are_written_as_people_write_them_and_name_the_same_folder(read):
    first, second = read("{ranks: 1, grid: {learning_rate: [1e-3, 0.01]}, group: 2024_11}")
    assert (first.experiment.learning_rate, second.experiment.learning_rate) == (0.001, 0.01)
    assert str(first.directory) == "runs/2024_11/BNN_conv_flip-r1-learning_rate=0.001"
    zero, one = read("{ranks: 1, grid: {kl_weight: [0, 1]}}")  # as before: no kl_weight=0.0
    assert zero.directory.name == "BNN_conv_flip-r1-kl_weight=0"
    assert one.experiment.kl_weight == 1.0
    assert read("{ranks: 1, walltime: 90}")[0].walltime == "00:01:30"


GRID = {"ranks": 1, "grid": {"model": "CNN_FC"}}


@pytest.mark.parametrize(
    ("told", "why"),
    [
        # What is in a file at all.
        ("{", "no study file can be read"),
        ("ranks: 1\nranks: 2", "the key 'ranks' stands twice"),
        ("just a text", "expected the keys"),
        ({"parts": []}, "parts = []: expected a list of parts"),
        ({"parts": ["x"]}, "part 1: expected the keys"),
        (GRID | {"rank": 1}, "rank: no such key; did you mean ranks?"),
        ("{ranks: 1, seed: 3, model: CNN_FC}", "seed is a parameter; write it below common"),
        ({"parts": [GRID | {"model": "CNN_FC"}]}, "model is a parameter; write it below common"),
        ("", "expected the keys"),
        ({"parts": [GRID], "grid": {}}, "grid: no such key"),
        # Places.
        ({"group": "a"}, "expected either ranks or nodes"),
        (GRID | {"nodes": 1}, "ranks and nodes: expected one of the two"),
        (GRID | {"ranks": 0}, "ranks = 0: expected a whole number, 1 or more"),
        (GRID | {"ranks": []}, "ranks = []: expected one value or more"),
        (GRID | {"ranks": [2, 1, 2]}, "ranks: 2 stands twice"),
        (GRID | {"repeats": 1.5}, "repeats = 1.5: expected a whole number"),
        (GRID | {"walltime": "1 hour"}, 'expected "HH:MM:SS"'),
        (GRID | {"group": "../x"}, "group = '../x': expected a folder's name"),
        # Parameters.
        (GRID | {"common": ["x"]}, "common = ['x']: expected name: value"),
        (GRID | {"common": {"modle": "CNN_FC"}}, "common: modle: no such parameter; did you mean"),
        (GRID | {"common": {"model": "CNN_FC"}}, "model: both in common and in grid"),
        (GRID | {"common": {"run_dir": "x"}}, "a study names its runs' folders itself"),
        ({"ranks": 1, "grid": {"seed": []}}, "seed = []: expected one value or more"),
        ({"ranks": 1, "grid": {"seed": [1, 1]}}, "seed: 1 stands twice"),
        ("{ranks: 1, grid: {learning_rate: [1e-3, 0.001]}}", "learning_rate: 0.001 stands twice"),
        ("{ranks: 1, common: {seed: }}", "seed = None: expected a value"),
        (GRID | {"common": {"epochs": 0}}, "epochs = 0: expected greater than 0"),
        ({"ranks": 1, "grid": {"model": "CNN_FCC"}}, "did you mean CNN_FC?"),
        (GRID | {"common": {"dataset": "mnits"}}, ".npz; did you mean mnist?"),
        (GRID | {"common": {"eval_sets": ["shfits"]}}, "shfits"),
        (GRID | {"common": {"ood_sets": ["kmnits"]}}, "for 'kmnits' a set's name or a path"),
        ({"ranks": 3, "common": {"global_batch": 64}}, "a multiple of all virtual ranks, 3"),
        (GRID | {"common": {"global_batch": 8, "batch_size": 8}}, "expected one of the two"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_file_and_key(read, told, why):
    with pytest.raises(ExperimentError) as error:
        read(told)
    assert "study.yaml: " in str(error.value)
    assert why in str(error.value)


def test_the_part_is_named_that_has_the_mistake(read):
    """The last part's, though each run before it could start."""
    text = TWO_PARTS + "- {group: strong, ranks: 2, grid: {model: CNN_FC, seed: [0, -1]}}"
    with pytest.raises(ExperimentError, match=r"study.yaml: part 3 \(strong\): seed = -1"):
        read(text)


def test_two_parts_with_one_folder_are_refused(read):
    text = TWO_PARTS + "- {group: weak, ranks: 2, grid: {model: CNN_FC, noise_streams: 1}}"
    with pytest.raises(ExperimentError) as error:
        read(text)
    assert (
        "part 3 (weak): a run in runs/weak/CNN_FC-r2-noise_streams=1, where part 1 (weak) has one"
        in str(error.value)
    )


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("- {group: weak, ranks: [1]}", "write `parts:` above it"),
        ("{group: s, ranks: [1], vary: {seed: [0]}}", "vary is a word of older sweeps; write grid"),
        ("{ranks: [1], parameters: {seed: 0}}", "older sweeps; write common"),
    ],
)
def test_an_older_language_is_told_how_to_write_it_now(read, text, how):
    with pytest.raises(ExperimentError) as error:
        read(text)
    assert how in str(error.value)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_repositorys_own_studies_are_read(path):
    assert study_file.read(path)


def test_the_folders_of_the_published_figures_runs_are_still_named():
    names = {str(run.directory) for run in study_file.read(ROOT / "jobs/studies/scaling.yaml")}
    assert {"runs/weak/CNN_conv-r1-batch_size=32-repeat2", "runs/strong/CNN_VGG-r2"} <= names
