"""The one reader: what people write, by the type of the field that it is for."""

import datetime
import math
from pathlib import Path
from typing import Any

import pytest

from bnnlib import parameters
from bnnlib.errors import ExperimentError
from bnnlib.experiment import Experiment


@pytest.mark.parametrize(
    ("written", "expected", "value"),
    [
        # What YAML 1.1 takes for text, Python's and people's forms, and with a sign.
        ("1e-3", float, 0.001),
        ("1E-3", float, 0.001),
        ("-.5", float, -0.5),
        (" 0.25 ", float, 0.25),
        ("2", float, 2.0),
        ("1e1", int, 10),
        ("+10", int, 10),
        ("1_000", int, 1000),
        ("60e3", int, 60_000),
        ("010", int, 10),  # YAML 1.1 reads eight
        ("1.0", int, 1),
        ("true", bool, True),
        ("No", bool, False),
        # Text stays as typed, whatever else it could be.
        ("20241127", str, "20241127"),
        ("2024_11_27", str, "2024_11_27"),
        ("007", str, "007"),
        ("no", str, "no"),
        (" x", str, " x"),
        (20241127, str, "20241127"),  # papermill has made a number of it
        # A list is a list, one value too, and its items are read alike.
        ("kmnist", list[str], ["kmnist"]),
        ("[test, 2024]", list[str], ["test", "2024"]),
        (["test", 7], list[str], ["test", "7"]),
        ("[1e-3, 2]", list[float], [0.001, 2.0]),
        ("[]", list[str], []),
        # Text, or a list of text.
        ("first", object, "first"),
        ("[conv, 2024]", object, ["conv", "2024"]),
        (["conv", 7], object, ["conv", "7"]),
    ],
)
def test_a_value_is_read_by_its_fields_type(written, expected, value):
    read = parameters.read("name", written, expected)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("written", "expected", "why"),
    [
        ("ten", int, "'ten': expected a whole number, such as 10 or 1e3"),
        ("1.5", int, "'1.5': expected a whole number"),
        ("1:30", int, "'1:30': expected a whole number"),  # YAML 1.1 reads ninety
        ("1" * 5000, int, "expected a whole number"),  # Python refuses to read it
        ("1e999", int, "expected a whole number"),
        ("0,001", float, "'0,001': expected a number, such as 0.001 or 1e-3"),
        ("", float, "'': expected a number"),
        ("1", bool, "'1': expected true or false"),
        (None, int, "None: expected a value; left out, the default holds"),
        ([None], list[str], "None: expected a value"),
        ("[a, b", list[str], "name ("),
        (1000.0, str, "1000.0: expected text, and papermill has made a value of it"),
        (True, str, "True: expected text, and papermill has made a value of it"),
    ],
)
def test_what_is_no_value_of_the_type_is_refused_with_what_is_expected(written, expected, why):
    with pytest.raises(ExperimentError) as error:
        parameters.read("name", written, expected)
    assert str(error.value).startswith("name")
    assert why in str(error.value)


def test_the_advice_on_text_that_has_become_a_value_is_right():
    """papermill's -r gives text, and quotes in YAML too."""
    with pytest.raises(ExperimentError, match="-r run_dir TEXT"):
        Experiment.read({"run_dir": 1000.0})
    assert Experiment.read({"run_dir": "1e3"}).run_dir == "1e3"


@pytest.mark.parametrize("text", ["nan", ".nan", "inf", "-.INF"])
def test_a_number_that_is_not_finite_is_read_for_what_it_is_and_refused(text):
    assert not math.isfinite(parameters.read("name", text, float))
    with pytest.raises(ExperimentError, match="expected a finite number"):
        Experiment.read({"learning_rate": text})


def test_values_of_no_text_are_left_to_the_experiment():
    for name, value in {"epochs": True, "learning_rate": [1], "profile": 1}.items():
        with pytest.raises(ExperimentError, match=f"^{name} = "):
            Experiment.read({name: value})
    with pytest.raises(ExperimentError, match=r"^run_dir = "):
        Experiment.read({"run_dir": datetime.datetime(2024, 11, 27)})
    with pytest.raises(ExperimentError, match=r"^modle: .*did you mean model"):
        Experiment.read({"modle": "x"})


def test_what_an_experiment_writes_it_reads():
    experiment = Experiment(
        learning_rate=1e-5, ood_sets=["a.npz", "b.npz"], profile=True, run_dir="7"
    )
    assert Experiment.read(experiment.to_dict()) == experiment


YAML: dict[bytes, Any] = {
    b"a: 1e-3": {"a": "1e-3"},
    b"a: 2024-11-27": {"a": "2024-11-27"},
    b"a: [on, 0x10, 12:30]": {"a": ["on", "0x10", "12:30"]},
    b"a:": {"a": None},
    b"a: ~": {"a": None},
    b"a: '~'": {"a": "~"},
    b"base: &b {x: 1}\na: {<<: *b, y: 2}": {"base": {"x": "1"}, "a": {"x": "1", "y": "2"}},
    b"\xef\xbb\xbfa: 1": {"a": "1"},  # the mark of Windows' editor
    "# r\xe9seau\na: \xe9".encode(): {"a": "\xe9"},
    b"a: 1\r\nb: 2\r\n": {"a": "1", "b": "2"},
    b"": None,
}


@pytest.mark.parametrize("content", YAML)
def test_yaml_keeps_each_scalar_as_it_is_typed(tmp_path, content):
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    assert parameters.read_file(path, "file") == YAML[content]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a: 1\n# r\xe9seau", "line 2 is no UTF-8; save it in that encoding"),  # Latin-1
        ("a: 1".encode("utf-16"), "line 1 is no UTF-8"),
        (b"a: 1\na: 2", "line 1: the key 'a' stands twice"),
        (b"a: [", "line 1: expected the node content"),
        (b"a:\n\tb: 1", "line 2: found character"),
        (b"[1]: 2", "line 1: found unhashable key"),
        (b"a: 1\n---\nb: 2", "line 2: but found another document"),
        (b"a: \x00", "character 4, #x0000: special characters are not allowed"),
        (b"a: !!python/object:os.system x", "could not determine a constructor"),
        (b"[" * 5000, "recursion"),
    ],
)
def test_a_file_that_cannot_be_read_says_where_in_one_line(tmp_path, content, why):
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(ExperimentError) as error:
        parameters.read_file(path, "study file")
    assert str(error.value).startswith(f"{path}: no study file can be read (")
    assert why in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["missing.yaml", ".", "a\0b"])
def test_a_file_that_is_not_there_says_so(tmp_path, name):
    with pytest.raises(ExperimentError, match=r": no parameters can be read \(.+\)$"):
        parameters.text_of(Path(tmp_path, name), "parameters")
