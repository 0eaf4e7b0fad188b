"""Every parameter's limits by hand, and arbitrary values that end in an experiment or one error."""

import ast
import copy
import dataclasses
import inspect
import io
import json
import math
import pickle
import tokenize
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill.translators import PythonTranslator

from bnnlib.errors import ExperimentError
from bnnlib.experiment import UPKEEP, Experiment, read_value, unknown_name
from bnnlib.names import ALL_MODELS, DATASETS, OOD_SETS

NAMES = [field.name for field in dataclasses.fields(Experiment)]
DEFAULTS = Experiment().to_dict()
TYPES = {name: type(value) for name, value in DEFAULTS.items()}

# By hand: values just inside the limits, and just outside.
LIMITS: dict[str, tuple[list[Any], list[Any]]] = {
    "model": (
        ["CNN_FC", "BNN_LeNet5_flip", "my own.py:network", "package.module:network"],
        ["", " CNN_FC", "CNN_FC\n", "my own", "mine.py"],
    ),
    "dataset": (
        ["tiny", "/data/mine.npz", "MINE.NPZ"],
        ["", " tiny", "tiny ", "digit", "mine.npy", "mine.npz "],
    ),
    "pixel_range": (["auto", "0..255", "0..1", "any"], ["", "255", "0..2"]),
    "channels": (["auto", "last", "first"], ["", "3"]),
    "bayesian_layers": (
        ["auto", "none", "first", "last", "all", ["conv2d"], ["conv2d", "dense"]],
        ["", "First", [], [""], ["dense", "dense"], [1], 1, None, True],
    ),
    "estimator": (["auto", "flipout", "reparameterization", "local"], ["", "flip"]),
    "init_from": (["", "model", "runs/digits/CNN_LeNet5"], []),
    "init_scale": ([1e-3, 0.1, 1.0], [0.0, -0.1]),
    "inference": (["adam", "ivon", "swag"], ["", "IVON"]),
    "subtract_mean": ([True, False], []),
    "epochs": ([1, 10**6], [0, -1]),
    "steps": ([0, 1], [-1]),
    "until": (["epochs", "converged"], ["", "forever"]),
    "batch_size": ([1, 128], [0, -64]),
    "virtual_ranks": ([1, 4], [0]),
    "learning_rate": ([1e-9, 1.0], [0.0, -1e-3]),
    "learning_rate_scaling": (["none", "sqrt", "linear"], ["", "quadratic"]),
    "learning_rate_schedule": (["constant", "cosine"], ["", "linear"]),
    "rho_rate": ([0.1, 30.0], [0.0, -1.0]),
    "warmup_epochs": ([0.0, 0.5], [-0.1]),
    "kl_weight": ([0.0, 2.0], [-1e-9]),
    "kl_annealing_epochs": ([0.0, 3.5], [-1.0]),
    "prior_stddev": ([1e-3, 10.0], [0.0, -1.0]),
    "posterior_stddev": ([0.0, 0.3], [-0.1]),
    "weight_decay": (["none", "prior"], ["", "1e-4"]),
    "ivon_h0": ([1e-3, 2.0], [0.0, -1.0]),
    "ivon_beta2": ([0.0, 0.99999], [-0.1, 1.0]),
    "swag_start": ([0.0, 0.5], [-0.1, 1.0]),
    "swag_rate": ([0.5, 2.0], [0.0]),
    "dropout": ([0.0, 0.5, 0.999], [-0.1, 1.0]),
    "train_draws": ([1, 8], [0]),
    "test_draws": ([1, 200], [0]),
    "eval_draws": ([0, 10], [-1]),
    "eval_images": ([0, 1000], [-1]),
    "predict_with": (["draws", "mean", "probit"], ["", "mode"]),
    "laplace": ([True, False], []),
    "holdout": ([0.0, 0.1, 0.499], [-0.1, 0.5, 1.0]),
    "train_images": ([0, 540], [-1]),
    "train_images_seed": ([0, 4], [-1]),
    "eval_sets": ([[], ["test"], ["test", "shifts"]], [[""], [" test"], ["test", "test"]]),
    "ood_sets": (
        [[], ["kmnist", "/data/mine.npz"]],
        [[""], ["kmnist "], ["svhn", "mnist", "svhn"], ["svhn", "digits"]],
    ),
    "evaluate_every": ([0, 1], [-1]),
    "noise_streams": ([0, 1, 4], [-1]),
    "seed": ([0, 2**31 - 1], [-1, 2**31]),
    "threads": ([0, 64], [-1]),
    "inter_threads": ([1, 2], [0]),
    "compression": (["none", "fp16"], ["", "bf16"]),
    "profile": ([True, False], []),
    "log_every": ([1, 1000], [0]),
    "tensorboard": ([True, False], []),
    "checkpoint_steps": ([0, 100], [-1]),
    "checkpoint_minutes": ([0.0, 0.5], [-1.0]),
    "keep_checkpoints": ([1, 5], [0]),
    "on_rank_change": (["refuse", "continue"], ["", "yes"]),
    "check_ranks_every": ([0, 1000], [-1]),
    "stall_minutes": ([0.0, 0.5], [-1.0]),
    "run_dir": (["", "runs/demo"], []),
}
WRONG_TYPES: dict[type, list[Any]] = {
    str: [1, 1.0, True, None, ["text"], b"text"],
    bool: [0, 1, 1.0, "True", "", None],
    int: [True, False, "10", 1.5, math.nan, math.inf, None, [1], 1 + 0j],
    list: ["test", None, 1, [1], [None], {"test": 1}, [["test"]]],
    float: [True, "0.1", math.nan, math.inf, -math.inf, None, [0.1], 10**400],
}

# The same examples each time, and no deadline: a busy machine is no failure.
quick = settings(deadline=None, derandomize=True)

PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.sampled_from(["auto", "first", "none", "shared", 10**400, -(10**400), 0, 1]),
    st.lists(st.text()),
    st.dictionaries(st.text(), st.integers(), max_size=2),
)


def some_fields() -> st.SearchStrategy[dict[str, Any]]:
    """A few parameters, each with values that it can have."""
    whole, number = st.integers(1, 10**6), st.floats(1e-6, 1e6)
    kinds: dict[type, st.SearchStrategy[Any]] = {int: whole, float: number, bool: st.booleans()}
    chosen = {name: kinds.get(TYPES[name], st.sampled_from(LIMITS[name][0])) for name in NAMES}
    text = st.text(max_size=40).filter(lambda t: t == t.strip())
    chosen |= {
        name: st.sampled_from(LIMITS[name][0])
        for name in ("holdout", "dropout", "ivon_beta2", "swag_start")
    }
    own = text.map("a{}.py:network".format)
    chosen |= {"model": own, "dataset": text.map("a{}.npz".format), "run_dir": st.just("")}
    return st.fixed_dictionaries({}, optional=chosen)


def test_the_limits_cover_every_parameter():
    assert list(LIMITS) == NAMES == Experiment.names()


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in NAMES for v in LIMITS[n][0]])
def test_a_value_inside_the_limits_is_kept(name, value):
    experiment = Experiment.from_mapping({name: value})
    assert getattr(experiment, name) == value
    others = {n: v for n, v in experiment.to_dict().items() if n != name}
    assert others == {n: v for n, v in DEFAULTS.items() if n != name}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n in NAMES for v in LIMITS[n][1]])
def test_a_value_outside_the_limits_is_refused_by_name_value_and_limit(name, value):
    with pytest.raises(ExperimentError) as error:
        Experiment.from_mapping({name: value})
    assert str(error.value).startswith(f"{name} = {value!r}: expected ")
    assert not str(error.value).endswith("expected ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (n, v)
        for n in NAMES
        for v in WRONG_TYPES[TYPES[n]]
        if (n, v) != ("bayesian_layers", ["text"])  # which may be a list
    ],
)
def test_a_value_of_another_type_is_refused(name, value):
    with pytest.raises(ExperimentError, match=rf"^{name} = "):
        Experiment.from_mapping({name: value})


def test_numbers_that_mean_the_same_are_taken_as_the_fields_type():
    experiment = Experiment.from_mapping({"epochs": 10.0, "batch_size": 1e3, "kl_weight": 2})
    assert (experiment.epochs, experiment.batch_size, experiment.kl_weight) == (10, 1000, 2.0)
    assert type(experiment.epochs) is type(experiment.batch_size) is int
    assert type(experiment.kl_weight) is float


def test_messages_of_wrong_types_say_which():
    with pytest.raises(ExperimentError, match=r"^epochs = '10': expected int, got str$"):
        Experiment(epochs="10")
    with pytest.raises(ExperimentError, match=r"^epochs = True: expected an int, got a bool$"):
        Experiment(epochs=True)
    with pytest.raises(ExperimentError, match=r"^learning_rate = nan: expected a finite number$"):
        Experiment(learning_rate=math.nan)
    with pytest.raises(ExperimentError, match=r"expected a finite number$"):
        Experiment(learning_rate=10**400)
    with pytest.raises(ExperimentError, match=r"list of text.* -y 'ood_sets: \[first, second\]'$"):
        Experiment(ood_sets="kmnist")


def test_lists_of_two_experiments_are_two_lists():
    one, other = Experiment(), Experiment()
    one.eval_sets.append("shifts")
    assert other.eval_sets == Experiment().eval_sets == ["test"]


@pytest.mark.parametrize(
    ("given_name", "near"),
    [("modle", "model"), ("learning_rte", "learning_rate"), ("batchsize", "batch_size")],
)
def test_an_unknown_name_is_refused_with_the_nearest(given_name, near):
    with pytest.raises(ExperimentError) as error:
        Experiment.from_mapping({given_name: 1})
    assert f"{given_name}: no such parameter; did you mean {near}?" in str(error.value)
    assert all(name in str(error.value) for name in NAMES)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"modle": "CNN_FC"}, r"^modle: no such parameter; did you mean model\?"),
        ({"epoch": 3}, r"^epoch: no such parameter; did you mean epochs\?"),
        ({"model": "bnn_fc_flip"}, r"^model = 'bnn_fc_flip': .*; did you mean BNN_FC_flip\? Known"),
        ({"model": "lenet5"}, r"; did you mean CNN_LeNet5\? Known: BNN_conv_flip, "),
        ({"dataset": "cifar"}, r"^dataset = 'cifar': .* ends in .npz; did you mean cifar10\?"),
        ({"ood_sets": ["svhn", "kmist"]}, r"expected for 'kmist' .*; did you mean kmnist\?"),
    ],
)
def test_the_object_refuses_what_it_does_not_know_with_the_nearest(values, told):
    with pytest.raises(ExperimentError, match=told):
        Experiment(**values)
    with pytest.raises(ExperimentError, match=told):
        dataclasses.replace(Experiment(), **values)


def test_every_name_that_a_library_knows_is_a_parameters():
    for name in ALL_MODELS:
        assert Experiment(model=name).model == name
    for name in DATASETS:
        assert Experiment(dataset=name).dataset == name
    assert Experiment(ood_sets=list(OOD_SETS)).ood_sets == list(OOD_SETS)


def test_a_program_may_count_in_numpys_numbers():
    experiment = Experiment(epochs=np.int64(3), learning_rate=np.float32(0.5), profile=np.True_)
    values = (experiment.epochs, experiment.learning_rate, experiment.profile)
    assert values == (3, 0.5, True)
    assert [type(value) for value in values] == [int, float, bool]


def test_its_help_shows_every_parameter_with_its_meaning():
    """What `bnnlib.Experiment?` prints in IPython: the signature and the docstring."""
    assert list(inspect.signature(Experiment).parameters) == NAMES
    shown = str(inspect.getdoc(Experiment))
    for field in dataclasses.fields(Experiment):
        assert field.metadata["meaning"] in shown


def test_an_experiment_is_copied_and_pickled():
    experiment = Experiment(model="CNN_FC", ood_sets=["svhn"])
    assert copy.deepcopy(experiment) == pickle.loads(pickle.dumps(experiment)) == experiment


def test_a_name_like_no_other_gets_no_guess():
    assert "did you mean" not in unknown_name("xyzzy", NAMES)
    assert unknown_name("a", ["b"], "flag") == "a: no such flag; Known: b"


@quick
@given(st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(), st.integers()), PLAIN))
def test_an_arbitrary_mapping_is_an_experiment_or_one_kind_of_error(values):
    try:
        experiment = Experiment.from_mapping(values)
    except ExperimentError as error:
        named = [name for name in values if str(error).startswith(f"{name}")]
        assert named, "the error names one of the parameters given"
    else:
        assert set(values) <= set(NAMES)
        assert Experiment.from_mapping(experiment.to_dict()) == experiment
        typed = [name for name in NAMES if name != "bayesian_layers"]  # text or a list
        assert all(type(getattr(experiment, name)) is TYPES[name] for name in typed)


@quick
@given(st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text()), PLAIN))
def test_an_arbitrary_namespace_is_an_experiment_or_one_kind_of_error(namespace):
    mistyped = [
        name
        for name in namespace
        if not name.startswith("_") and name not in (*NAMES, "In", "Out", "experiment")
    ]
    try:
        experiment = Experiment.from_namespace(namespace)
    except ExperimentError:
        return
    assert not mistyped or "experiment" in namespace
    for name in set(namespace) & set(NAMES):
        assert getattr(experiment, name) == read_value(name, namespace[name])


def notebook_namespace(**values: Any) -> dict[str, Any]:
    """What stands in a kernel's namespace after the parameters cell, IPython's own names too."""
    ipython = {
        "In": ["", "model = 'CNN_FC'"],
        "Out": {1: "out"},
        "_": "",
        "__": "",
        "_i": "model = 'CNN_FC'",
        "_i1": "model = 'CNN_FC'",
        "_ih": ["", "model = 'CNN_FC'"],
        "_oh": {1: "out"},
        "_dh": [Path.cwd()],
        "__name__": "__main__",
        "__doc__": "Automatically created module",
        "exit": object(),
        "quit": object(),
        "get_ipython": lambda: None,
        "open": open,
        "math": math,
        "Path": Path,
    }
    return ipython | DEFAULTS | values


def test_a_notebooks_namespace_is_read_and_ipythons_names_are_not():
    experiment = Experiment.from_namespace(notebook_namespace(model="CNN_FC", epochs=3))
    assert experiment == Experiment(model="CNN_FC", epochs=3)


@pytest.mark.parametrize("value", ["CNN_FC", 1, 1.0, True, ["a"], {"a": 1}, None])
def test_a_mistyped_parameter_in_a_notebook_is_refused(value):
    with pytest.raises(ExperimentError, match=r"^modle: .* did you mean model\?"):
        Experiment.from_namespace(notebook_namespace(modle=value))


def test_a_namespace_is_read_as_people_write_values():
    """papermill's -p and YAML 1.1 leave 1e-3 and true as text, and make a number of 20241127."""
    written = {
        "learning_rate": "1e-3",
        "profile": "true",
        "run_dir": 20241127,
        "ood_sets": "kmnist",
    }
    experiment = Experiment.from_namespace(notebook_namespace(**written))
    expected = Experiment(
        learning_rate=0.001, profile=True, run_dir="20241127", ood_sets=["kmnist"]
    )
    assert experiment == expected


def test_papermills_own_names_are_no_parameters():
    injected = {"PAPERMILL_INPUT_PATH": "a.ipynb", "PAPERMILL_OUTPUT_PATH": "b.ipynb"}
    assert Experiment.from_namespace(notebook_namespace(**injected)) == Experiment()


def test_names_of_startup_files_are_no_parameters_until_a_cell_sets_them():
    """A kernel hides from %who what its startup files have set: SEED = 42, a list, a flag."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    startup = {"SEED": 42, "colours": ["red"], "modle": None, "epochs": 3}
    shell.push(startup)
    shell.user_ns_hidden.update(shell.user_ns)
    shell.run_cell("from bnnlib.experiment import Experiment")
    shell.run_cell(Experiment.parameters_cell())
    result = shell.run_cell("Experiment.from_namespace(globals())")
    assert result.result == Experiment()
    shell.run_cell("SEED = 43")
    result = shell.run_cell("Experiment.from_namespace(globals())", silent=True)
    assert "SEED: no such parameter; did you mean seed?" in str(result.error_in_exec)


def test_a_real_shells_namespace_is_read():
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell()
    shell.run_cell(Experiment.parameters_cell())
    shell.run_cell("import math\nfrom bnnlib.experiment import Experiment\nepochs")
    result = shell.run_cell("Experiment.from_namespace(globals())")
    assert result.result == Experiment()
    shell.run_cell("modle = 'CNN_FC'")
    result = shell.run_cell("Experiment.from_namespace(globals())", silent=True)
    assert isinstance(result.error_in_exec, ExperimentError)


def test_a_notebook_run_again_in_a_live_kernel_may_hold_other_names():
    later = notebook_namespace(epochs=4, line="text", values={"accuracy": 1.0}, columns=["a"])
    with pytest.raises(ExperimentError, match="no such parameter"):
        Experiment.from_namespace(later)
    again = Experiment.from_namespace(later | {"experiment": Experiment()})
    assert again == Experiment(epochs=4)
    with pytest.raises(ExperimentError, match=r"^epochs = 0"):
        Experiment.from_namespace(later | {"experiment": Experiment(), "epochs": 0})


def test_an_experiment_cannot_be_changed():
    experiment = Experiment()
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.epochs = 3
    with pytest.raises(ExperimentError, match=r"^epochs = 0"):
        dataclasses.replace(experiment, epochs=0)


@quick
@given(some_fields())
def test_to_dict_gives_json_and_the_same_experiment_back(values):
    experiment = Experiment.from_mapping(values)
    assert list(experiment.to_dict()) == NAMES
    read = json.loads(json.dumps(experiment.to_dict(), allow_nan=False))
    assert Experiment.from_mapping(read) == experiment


def test_the_parameters_cell_gives_the_defaults_with_their_types():
    cell = Experiment.parameters_cell()
    namespace = dict[str, Any]()
    exec(compile(cell, "cell", "exec"), namespace)
    assert {name: namespace[name] for name in NAMES} == DEFAULTS
    assert [type(namespace[name]) for name in NAMES] == list(TYPES.values())
    annotations = {
        statement.target.id: ast.unparse(statement.annotation)
        for statement in ast.parse(cell).body
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    }
    words = {name: kind.__name__ for name, kind in TYPES.items()}
    assert annotations == words | {
        "eval_sets": "list[str]",
        "ood_sets": "list[str]",
        "bayesian_layers": "object",
    }


def test_the_manual_is_a_screen_of_lines_under_headings():
    lines = Experiment.manual().splitlines()
    headings = [line for line in lines if not line.startswith("  ")]
    assert headings[0] == lines[0] == "network and data"
    assert "learning rate" in headings
    parameters = [line.split(maxsplit=2) for line in lines if line.startswith("  ")]
    assert [name for name, *_ in parameters] == NAMES
    for (name, default, meaning), field in zip(
        parameters, dataclasses.fields(Experiment), strict=True
    ):
        assert default == (str(DEFAULTS[name]) or '""')
        assert meaning == field.metadata["meaning"]
    assert max(map(len, lines)) <= 120


def test_papermill_reads_every_line_of_the_parameters_cell():
    cell = nbformat.v4.new_code_cell(Experiment.parameters_cell())
    found = PythonTranslator.inspect(cell)
    assert [parameter.name for parameter in found] == NAMES
    for parameter in found:
        assert ast.literal_eval(parameter.default) == DEFAULTS[parameter.name]
        assert parameter.help
    types = {"str", "int", "float", "bool", "list[str]", "object"}
    assert {p.inferred_type_name for p in found} == types


def test_every_line_of_the_parameters_cell_says_what_it_means_in_one_line():
    cell = Experiment.parameters_cell()
    lines = cell.split("\n")
    assert len(lines) == len(NAMES)
    assert max(map(len, lines)) <= 100
    for name, line in zip(NAMES, lines, strict=True):
        assert line.startswith(f"{name}: ")
        tokens = list(tokenize.generate_tokens(io.StringIO(line).readline))
        comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
        assert len(comments) == 1
        assert len(comments[0]) > len("# some words")


@pytest.mark.parametrize(
    ("scaling", "factors"),
    [("none", [1, 1, 1]), ("sqrt", [1, math.sqrt(2), 2]), ("linear", [1, 2, 4])],
)
def test_the_learning_rate_factor_by_hand(scaling, factors):
    experiment = Experiment(learning_rate_scaling=scaling)
    assert [experiment.learning_rate_factor(ranks) for ranks in (1, 2, 4)] == factors


def test_default_run_dir_by_hand():
    assert str(Experiment().default_run_dir(2)) == "runs/single/digits/BNN_conv_flip-r2-s0"
    experiment = Experiment(model="CNN_FC", dataset="mnist", seed=3, epochs=2, learning_rate=1e-4)
    assert (
        str(experiment.default_run_dir(1))
        == "runs/single/mnist/CNN_FC-r1-s3-epochs=2-learning_rate=0.0001"
    )


def test_a_default_run_dir_lies_in_no_folder_of_a_study():
    params = Path(__file__).parents[1] / "jobs" / "params"
    groups = sorted(path.stem for path in params.glob("*.yaml"))
    assert {"digits", "tiny"} <= set(groups)
    for group in groups:  # as jobs/local/study.sh names its folders
        place = Experiment(dataset=group).default_run_dir(2)
        assert Path("runs", group) not in place.parents


def test_default_run_dir_tells_files_of_one_name_apart():
    places = ["/a/mine.npz", "/b/mine.npz", "mine.npz", "mine.NPZ"]
    found = [Experiment(dataset=place).default_run_dir(1) for place in places]
    assert len(set(found)) == len(places)
    assert {path.parent for path in found} == {Path("runs/single/mine")}


def assert_safe(path: Path) -> None:
    """A path of two plain folders below runs/single/, which any file system takes."""
    assert path.parts[:2] == ("runs", "single")
    assert len(path.parts) == 4
    for part in path.parts[1:]:
        assert part not in ("", ".", "..")
        assert len(part.encode("ascii")) <= 255
        assert set(part) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.=,-"
        )


@pytest.mark.parametrize(
    "text", ["..", "../../etc/passwd", "/", ".", "a b\0c", "\ud800", "ü" * 300]
)
def test_default_run_dir_stays_below_runs(text):
    own = Experiment(dataset=f"{text}.npz", model=f"{text}:network")
    assert_safe(own.default_run_dir(1))


@quick
@given(some_fields(), some_fields(), st.integers(1, 4), st.integers(1, 4))
def test_default_run_dir_is_safe_and_another_for_other_parameters(one, other, ranks, other_ranks):
    first, second = Experiment.from_mapping(one), Experiment.from_mapping(other)
    paths = first.default_run_dir(ranks), second.default_run_dir(other_ranks)
    for path in paths:
        assert_safe(path)
    upkeep = {name: DEFAULTS[name] for name in UPKEEP}
    same = dataclasses.replace(first, **upkeep) == dataclasses.replace(second, **upkeep)
    assert (paths[0] == paths[1]) == (same and ranks == other_ranks)


@quick
@given(some_fields(), st.sampled_from([n for n in NAMES[:-1] if n not in UPKEEP]), st.data())
def test_default_run_dir_tells_a_single_difference(values, name, data):
    first = Experiment.from_mapping(values)
    inside = [value for value in LIMITS[name][0] if value != getattr(first, name)]
    second = dataclasses.replace(first, **{name: data.draw(st.sampled_from(inside))})
    assert first.default_run_dir(1) != second.default_run_dir(1)
    elsewhere = dataclasses.replace(first, run_dir="elsewhere")
    assert first.default_run_dir(1) == elsewhere.default_run_dir(1)
