"""The original study's flags one by one: each is honoured or refused with a reason."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment
from bnnlib.launch import original_study_flags as flagfile

SAMPLE = Path(__file__).parents[2] / "jobs" / "local" / "original_study.cfg"
FLAGS = [
    *("UseEpoch", "batch_size", "bnnConv", "cnnConv", "data_dir", "epochs", "iteration"),
    *("learning_rate", "model_data", "model_type", "num_inter", "num_intra", "kmp_blocktime"),
    *("kmp_affinity", "print_step", "verbose", "compression"),
]


@pytest.fixture
def write(tmp_path):
    def write(*lines: str) -> Path:
        path = tmp_path / "config.cfg"
        path.write_text("".join(line + "\n" for line in lines))
        return path

    return write


def test_the_flags_are_the_original_studys():
    assert set(flagfile.definitions()) - {"flagfile", "undefok"} == set(FLAGS)


def test_an_empty_file_gives_the_original_studys_defaults(write):
    experiment, environment, verbose = flagfile.read(write())
    assert experiment == Experiment(
        model="BNN_conv_flip",
        dataset="digits",
        steps=8000,
        batch_size=64,
        learning_rate=1e-3,
        learning_rate_scaling="linear",
        warmup_epochs=0.0,
        log_every=10,
    )
    assert environment == {}
    assert verbose is False


HONOURED: list[tuple[list[str], dict[str, Any]]] = [
    (["--UseEpoch=True", "--epochs=3"], {"epochs": 3, "steps": 0}),
    (["--UseEpoch", "--epochs=3", "--iteration=7"], {"epochs": 3, "steps": 0}),
    (["--UseEpoch=False", "--epochs=3", "--iteration=7"], {"epochs": 10, "steps": 7}),
    (["--iteration=500"], {"steps": 500}),
    (["--batch_size=128"], {"batch_size": 128}),
    (["--learning_rate=0.01"], {"learning_rate": 0.01, "learning_rate_scaling": "linear"}),
    (["--bnnConv=BNN_FC_nonflip"], {"model": "BNN_FC_nonflip"}),
    (["--bnnConv=BNN_conv_nonflip", "--cnnConv=CNN_FC"], {"model": "BNN_conv_nonflip"}),
    (["--model_type=CNN"], {"model": "CNN_conv"}),
    (["--model_type=CNN", "--cnnConv=CNN_FC"], {"model": "CNN_FC"}),
    (["--model_type=CNN", "--cnnConv=CNN_Conv"], {"model": "CNN_conv"}),
    (["--data_dir=/data/mnist.npz"], {"dataset": "/data/mnist.npz"}),
    (["--model_data=./results/"], {"run_dir": "results/BNN_conv_flip"}),
    (["--model_data=out", "--model_type=CNN"], {"run_dir": "out/CNN_conv"}),
    (["--num_intra=128"], {"threads": 128}),
    (["--num_inter=2"], {"inter_threads": 2}),
    (["--print_step=500"], {"log_every": 500}),
    (["--compression=True"], {"compression": "fp16"}),
    (["--compression=False"], {"compression": "none"}),
    (["--nocompression"], {"compression": "none"}),
    (["--batch_size=1", "--batch_size=2"], {"batch_size": 2}),
]


@pytest.mark.parametrize(("lines", "expected"), HONOURED, ids=lambda v: " ".join(v))
def test_a_flag_is_honoured(write, lines, expected):
    experiment, _, _ = flagfile.read(write(*lines))
    assert {name: getattr(experiment, name) for name in expected} == expected


def test_the_threading_flags_become_environment_variables(write):
    path = write("--kmp_blocktime=0", "--kmp_affinity=granularity=fine,verbose,compact,1,0")
    _, environment, _ = flagfile.read(path)
    assert environment == {
        "KMP_BLOCKTIME": "0",
        "KMP_AFFINITY": "granularity=fine,verbose,compact,1,0",
    }


@pytest.mark.parametrize(("line", "verbose"), [("--verbose", True), ("--verbose=False", False)])
def test_verbose_is_handed_on(write, line, verbose):
    assert flagfile.read(write(line))[2] is verbose


def test_every_flag_is_tested_above():
    honoured = {line.lstrip("-").split("=")[0] for lines, _ in HONOURED for line in lines}
    elsewhere = {"kmp_blocktime", "kmp_affinity", "verbose", "nocompression"}
    assert honoured | elsewhere == {*FLAGS, "nocompression"}


@pytest.mark.parametrize(("ranks", "steps"), [(1, 8001), (2, 4000), (3, 2667), (8001, 1)])
def test_iteration_is_divided_by_the_ranks_and_rounded_down(write, ranks, steps):
    assert flagfile.read(write("--iteration=8001"), ranks)[0].steps == steps


def test_fewer_iterations_than_ranks_are_refused(write):
    with pytest.raises(ExperimentError, match=r"^iteration = 3: expected at least .* ranks, 4"):
        flagfile.read(write("--iteration=3"), ranks=4)
    # With epochs the number of iterations says nothing.
    assert flagfile.read(write("--iteration=3", "--UseEpoch"), ranks=4)[0].epochs == 10


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--bacth_size=3", "bacth_size: no such flag; did you mean batch_size?"),
        ("--Model_type=CNN", "Model_type: no such flag; did you mean model_type?"),
        ("--nobatch_size", "nobatch_size: no such flag; did you mean batch_size?"),
        ("--undefok=modle", "undefok would ignore flags; take it out"),
        ("--batch_size=x", "batch_size = 'x': expected a whole number, 1 or more"),
        ("--batch_size=", "batch_size = '': expected a whole number, 1 or more"),
        ("--batch_size=1.5", "batch_size = '1.5': expected a whole number, 1 or more"),
        ("--batch_size=0", "batch_size = '0': expected a whole number, 1 or more"),
        ("--epochs=0", "epochs = '0': expected a whole number, 1 or more"),
        ("--iteration=0", "iteration = '0': expected a whole number, 1 or more"),
        ("--print_step=0", "print_step = '0': expected a whole number, 1 or more"),
        ("--num_inter=0", "num_inter = '0': expected a whole number, 1 or more"),
        ("--num_intra=-1", "num_intra = '-1': expected a whole number, 0 or more"),
        ("--kmp_blocktime=-1", "kmp_blocktime = '-1': expected a whole number, 0 or more"),
        ("--kmp_blocktime=infinite", "kmp_blocktime = 'infinite': expected a whole number"),
        ("--learning_rate=fast", "learning_rate = 'fast': expected a number"),
        ("--learning_rate=0", "learning_rate = 0.0: expected greater than 0"),
        ("--learning_rate=nan", "learning_rate = nan: expected a finite number"),
        ("--UseEpoch=maybe", "UseEpoch = 'maybe': expected True or False"),
        ("--model_type=RNN", "model_type = 'RNN': expected one of BNN, CNN"),
        ("--bnnConv=CNN_conv", "bnnConv = 'CNN_conv': expected one of BNN_conv_flip, "),
        ("--cnnConv=a: b", "cnnConv = 'a: b': expected one of CNN_conv, CNN_FC"),
        ("--data_dir=", "dataset = '': expected a data set's name"),
        ("--batch_size", "Missing value for flag --batch_size"),
        ("batch_size=64", "'batch_size=64' is no flag; write --name=value"),
        ("--flagfile=/does/not/exist.cfg", "'/does/not/exist.cfg'"),
    ],
)
def test_a_line_that_cannot_be_honoured_is_refused_with_its_reason(write, line, message):
    with pytest.raises(ExperimentError) as error:
        flagfile.read(write("--verbose", line))
    assert message in str(error.value)


def test_errors_of_a_line_name_the_file(write):
    path = write("--batch_size=x")
    with pytest.raises(ExperimentError, match="^" + re.escape(f"--flagfile={path}: batch_size")):
        flagfile.read(path)


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / "none.cfg", tmp_path):
        with pytest.raises(ExperimentError, match=re.escape(f"--flagfile={path}: no such file")):
            flagfile.read(path)


def test_comments_blank_lines_and_trailing_spaces_are_no_flags(write):
    path = write("# --batch_size=0", "// --batch_size=0", "", "   ", "--batch_size=32 ", "# end")
    assert flagfile.read(path)[0].batch_size == 32


def test_a_mark_before_the_text_is_no_flag(tmp_path):
    for text in ("--epochs=3\n--UseEpoch\n", "# comment\n--epochs=3\n--UseEpoch\n"):
        (tmp_path / "config.cfg").write_text(text, encoding="utf-8-sig")
        assert flagfile.read(tmp_path / "config.cfg")[0].epochs == 3


def test_a_file_of_another_encoding_says_so(tmp_path):
    (tmp_path / "config.cfg").write_text("--epochs=3\n# r\xe9seau", encoding="latin-1")
    with pytest.raises(ExperimentError, match=r"line 2 is no UTF-8; save it in that encoding"):
        flagfile.read(tmp_path / "config.cfg")


def test_a_file_may_include_another(write, tmp_path):
    (tmp_path / "common.cfg").write_text("--batch_size=32\n")
    path = write(f"--flagfile={tmp_path / 'common.cfg'}", "--epochs=2", "--UseEpoch")
    experiment = flagfile.read(path)[0]
    assert (experiment.batch_size, experiment.epochs) == (32, 2)


def test_the_original_studys_own_config_is_read(write):
    path = write(
        "--UseEpoch=True ",
        "--batch_size=64 ",
        "--bnnConv=BNN_conv_flip",
        "--cnnConv=CNN_Conv",
        "--data_dir=/projects/DATA/mnist.npz",
        "--epochs=10 ",
        "--learning_rate=0.001",
        "--model_data=./results/",
        "--model_type=BNN",
        "--num_inter=1",
        "--num_intra=128",
        "--print_step=10",
        "--verbose=False",
    )
    experiment, environment, verbose = flagfile.read(path, ranks=2)
    assert experiment == Experiment(
        model="BNN_conv_flip",
        dataset="/projects/DATA/mnist.npz",
        epochs=10,
        batch_size=64,
        learning_rate=1e-3,
        learning_rate_scaling="linear",
        warmup_epochs=0.0,
        threads=128,
        log_every=10,
        run_dir="results/BNN_conv_flip",
    )
    assert (environment, verbose) == ({}, False)


def test_the_sample_config_holds_every_flag_and_is_read():
    lines = [line for line in SAMPLE.read_text().splitlines() if line.startswith("--")]
    assert sorted(line[2:].split("=")[0] for line in lines) == sorted(FLAGS)
    experiment, environment, verbose = flagfile.read(SAMPLE, ranks=2)
    assert experiment == Experiment(
        model="BNN_conv_flip",
        dataset="mnist",
        epochs=10,
        batch_size=64,
        learning_rate=1e-3,
        learning_rate_scaling="linear",
        warmup_epochs=0.0,
        log_every=10,
        run_dir="runs/original_study/BNN_conv_flip",
    )
    assert environment == {"KMP_BLOCKTIME": "0", "KMP_AFFINITY": "granularity=fine,compact,1,0"}
    assert verbose is False


LINE = st.one_of(
    st.text(max_size=20),
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["", "-", "--", "--no"]),
        st.sampled_from([*FLAGS, "flagfile", "undefok", "help"]),
        st.sampled_from(["", "=", " "]),
        st.one_of(st.text(max_size=8), st.integers().map(str), st.floats().map(str)),
    ),
)


def read_or_refuse(path: Path, ranks: int = 1) -> None:
    """Whatever stands in the file, only an ExperimentError may come out."""
    try:
        experiment, environment, verbose = flagfile.read(path, ranks)
    except ExperimentError:
        return
    assert isinstance(experiment, Experiment)
    assert set(environment) <= {"KMP_BLOCKTIME", "KMP_AFFINITY"}
    assert isinstance(verbose, bool)


# The file is written anew for each example, so that one folder serves them all.
one_folder = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True
)


@one_folder
@given(st.one_of(st.lists(LINE).map("\n".join), st.text()), st.integers(1, 8))
def test_arbitrary_text_is_an_experiment_or_one_kind_of_error(tmp_path, text, ranks):
    path = tmp_path / "config.cfg"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    read_or_refuse(path, ranks)


@one_folder
@given(st.binary())
def test_arbitrary_bytes_are_an_experiment_or_one_kind_of_error(tmp_path, content):
    path = tmp_path / "config.cfg"
    path.write_bytes(content)
    read_or_refuse(path)
