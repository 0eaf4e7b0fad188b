"""The table of a group: what differs, means over seeds, order, and forms that programs read."""

import json
import math
import statistics

import numpy as np
import pandas as pd
import pytest

from bnnlib.analysis import listing, load
from bnnlib.errors import RecordError
from bnnlib.experiment import Experiment
from bnnlib.record.failure import record_failure
from tests.analysis.records import random_probs, write_run

LABELS = np.random.default_rng(0).integers(0, 3, 40)
NLL = {("a", seed): 0.5 + 0.1 * seed**2 for seed in range(3)} | {("b", 0): 0.25}


@pytest.fixture
def group(tmp_path):
    """Three seeds with one learning rate and one seed with another; nothing else differs."""
    for (name, seed), nll in NLL.items():
        sets = {"test": (random_probs([seed, ord(name)]), LABELS)}
        rate = {"a": 1e-3, "b": 1e-2}[name]
        folder = tmp_path / "g" / f"{name}{seed}"
        write_run(
            folder,
            "CNN_FC",
            seed,
            sets,
            learning_rate=rate,
            run_dir=str(folder),
            keep_checkpoints=seed + 1,
        )
        record = json.loads((folder / "run.json").read_text())
        record["metrics"]["nll"] = nll
        (folder / "run.json").write_text(json.dumps(record))
    return tmp_path / "g"


def printed(capsys, path, **asked):
    listing.print_table(path, **asked)
    return capsys.readouterr().out


def test_a_row_has_the_runs_id_and_only_what_differs(group, capsys):
    header, *rows = printed(capsys, group).splitlines()
    assert header.split() == ["run_id", "learning_rate", "seed", *listing.RESULTS]
    assert [row.split()[:4] for row in rows] == [
        ["a0", "0.001", "0", "finished"],
        ["a1", "0.001", "1", "finished"],
        ["a2", "0.001", "2", "finished"],
        ["b0", "0.01", "0", "finished"],
    ]


def test_a_run_alone_is_told_by_what_it_is(group, capsys):
    header, row = printed(capsys, group / "b0").splitlines()
    assert header.split()[:5] == ["run_id", "model", "dataset", "seed", "ranks"]
    assert row.split()[:5] == ["b0", "CNN_FC", "tiny", "0", "1"]


def test_a_run_older_than_a_parameter_differs_only_where_the_default_does(group):
    for name in ("a0", "a1"):
        path = group / name / "run.json"
        record = json.loads(path.read_text())
        del record["parameters"]["kl_weight"], record["parameters"]["learning_rate"]
        path.write_text(json.dumps(record))
    table = listing.by_run(load(group))
    assert list(table)[1:3] == ["learning_rate", "seed"]
    assert table["learning_rate"].tolist() == [1e-3, 1e-3, 1e-3, 1e-2]


def test_refused_parameters_are_not_shown_as_defaults(group, capsys):
    record_failure(group / "c", {"modle": "x"}, {"type": "E", "message": "m", "rank": 0})
    last = printed(capsys, group).splitlines()[-1]
    assert last.split() == ["c", "-", "-", "failed", *"-------"]
    assert listing.differing(load(group)) == ["learning_rate", "seed"]
    assert printed(capsys, group).splitlines()[1].split()[2] == "0"  # and not 0.0


def test_ranks_and_groups_are_columns_where_they_differ(group, capsys):
    path = group / "a1" / "run.json"
    path.write_text(path.read_text().replace('"ranks": 1', '"ranks": 2'))
    other = group.parent / "h" / "a0"
    write_run(other, "CNN_FC", 0, {"test": (random_probs(5), LABELS)})
    header = printed(capsys, group.parent).splitlines()[0]
    assert header.split()[:5] == ["group", "run_id", "learning_rate", "seed", "ranks"]


def test_means_and_deviations_over_seeds_by_hand(group):
    table = listing.by_seed(load(group)).set_index("learning_rate")
    assert table["seeds"].to_dict() == {1e-3: 3, 1e-2: 1}
    nll = [NLL["a", seed] for seed in range(3)]
    assert table.loc[1e-3, "nll"] == pytest.approx(statistics.mean(nll))
    assert table.loc[1e-3, "nll_sd"] == pytest.approx(statistics.stdev(nll))  # n - 1
    assert table.loc[1e-3, "images_per_second_sd"] == pytest.approx(1.0)  # of 100, 101 and 102
    assert table.loc[1e-2, "nll"] == NLL["b", 0]
    assert math.isnan(table.loc[1e-2, "nll_sd"])


def test_a_row_of_one_seed_says_so(group, capsys):
    header, three, one = printed(capsys, group, by="seed").splitlines()
    assert header.split()[:3] == ["learning_rate", "seeds", "accuracy"]
    assert three.split()[:2] == ["0.001", "3"]
    assert "0.6667 ± 0.2082" in three
    assert one.split()[:4] == ["0.01", "1,", "no", "sd"]
    assert "±" not in one


def test_two_runs_of_a_seed_count_once(group):
    """The same seed again, elsewhere, is no further sample: the deviation would shrink."""
    sets = {"test": (random_probs([0, ord("b")]), LABELS)}
    write_run(group / "b0_again", "CNN_FC", 0, sets, learning_rate=1e-2)
    row = listing.by_seed(load(group)).set_index("learning_rate").loc[1e-2]
    again = load(group / "b0_again")["nll"][0]
    assert row["seeds"] == 1
    assert row["nll"] == pytest.approx((NLL["b", 0] + again) / 2)
    assert math.isnan(row["nll_sd"])


def test_runs_that_have_not_finished_are_named_and_not_averaged(group, capsys):
    path = group / "a2" / "run.json"
    path.write_text(path.read_text().replace('"status": "finished"', '"status": "stopped"'))
    told = printed(capsys, group, by="seed").splitlines()
    assert told[-1] == "not finished, and so not counted: a2"
    assert told[1].split()[:2] == ["0.001", "2"]
    for name in ("a0", "a1", "b0"):
        path = group / name / "run.json"
        path.write_text(path.read_text().replace('"status": "finished"', '"status": "failed"'))
    assert printed(capsys, group, by="seed").strip() == (
        "not finished, and so not counted: a0, a1, a2, b0"
    )


def test_converged_posteriors_are_counted(group):
    for name, yes in (("a0", True), ("a1", False)):
        path = group / name / "run.json"
        record = json.loads(path.read_text())
        path.write_text(json.dumps(record | {"converged": {"converged": yes, "change": 0.01}}))
    table = listing.by_seed(load(group))
    assert table["converged"].tolist() == ["1 of 2", None]


def test_of_a_posterior_with_too_few_lines_the_table_says_unknown(group, capsys):
    """It said NO, as of one that still moves; and - as of a network without a posterior."""
    for name, kl in (("a0", 5.0), ("a1", 0.0)):
        path = group / name / "run.json"
        record = json.loads(path.read_text())
        record["metrics"]["kl"] = kl
        record["converged"] = {"converged": None, "change": None} if kl else None
        path.write_text(json.dumps(record))
    _, a0, a1, *_ = printed(capsys, group).splitlines()
    assert (a0.split()[-2:], a1.split()[-2:]) == (["unknown", "-"], ["-", "-"])
    assert listing.by_seed(load(group))["converged"].tolist() == ["1 unknown", None]
    rows = json.loads(printed(capsys, group, form="json"))
    assert [row["converged"] for row in rows] == [None] * 4


def test_an_infinite_nll_has_no_deviation_and_warns_of_nothing(group, recwarn):
    path = group / "a1" / "run.json"
    record = json.loads(path.read_text())
    record["metrics"]["nll"] = "Infinity"
    path.write_text(json.dumps(record))
    table = listing.by_seed(load(group))
    assert table["nll"][0] == math.inf
    assert math.isnan(table["nll_sd"][0])
    assert not recwarn.list


@pytest.mark.parametrize(
    ("asked", "ids"),
    [
        ({"sort": "nll"}, ["b0", "a0", "a1", "a2"]),
        ({"sort": "nll", "descending": True}, ["a2", "a1", "a0", "b0"]),
        ({"sort": "seed"}, ["a0", "b0", "a1", "a2"]),  # equal ones in order of path
        ({"sort": "keep_checkpoints", "descending": True}, ["a2", "a1", "a0", "b0"]),
        ({"sort": "run_id", "descending": True}, ["b0", "a2", "a1", "a0"]),
    ],
)
def test_rows_in_order_of_any_column(group, capsys, asked, ids):
    header, *rows = printed(capsys, group, **asked).splitlines()
    assert [row.split()[0] for row in rows] == ids
    assert asked["sort"] in header.split()  # shown even where it does not differ


def test_runs_without_a_value_come_last_either_way(group, capsys):
    record_failure(group / "A", Experiment().to_dict(), {"type": "E", "message": "m", "rank": 0})
    for descending in (False, True):
        rows = printed(capsys, group, sort="nll", descending=descending).splitlines()
        assert rows[-1].split()[0] == "A"


def test_means_in_order_of_numbers_and_not_of_text(group, capsys):
    for name in ("a0", "a1", "a2"):
        path = group / name / "run.json"
        path.write_text(path.read_text().replace('"batch_size": 64', '"batch_size": 128'))
    rows = printed(capsys, group, by="seed", sort="batch_size").splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["64", "128"]


@pytest.mark.parametrize("by", [None, "seed"])
def test_a_mistyped_column_gets_the_nearest(group, by):
    with pytest.raises(RecordError, match="acuracy: no such column; did you mean accuracy"):
        listing.print_table(group, sort="acuracy", by=by)


def refuse_nan(text):
    raise AssertionError(f"{text} is no JSON")


def test_json_is_strict_and_has_all_digits(group, capsys):
    record_failure(group / "c", {}, {"type": "E", "message": "m", "rank": 0})
    rows = json.loads(printed(capsys, group, form="json"), parse_constant=refuse_nan)
    assert [row["nll"] for row in rows] == [*(load(group)["nll"][:4]), None]
    assert rows[0]["seed"] == 0
    assert isinstance(rows[0]["seed"], int)
    means = json.loads(printed(capsys, group, form="json", by="seed"), parse_constant=refuse_nan)
    assert means[1]["nll_sd"] is None
    assert means[0]["nll_sd"] == pytest.approx(statistics.stdev(NLL["a", s] for s in range(3)))


def test_csv_is_the_same_table_with_all_digits(group, capsys):
    path = group.parent / "printed.csv"
    for by, made in ((None, listing.by_run), ("seed", listing.by_seed)):
        path.write_text(printed(capsys, group, form="csv", by=by))
        expected = made(load(group))
        read = pd.read_csv(path)
        assert list(read) == list(expected)
        np.testing.assert_array_equal(read["nll"], expected["nll"])


def test_markdown_has_a_row_a_run(group, capsys):
    header, rule, *rows = printed(capsys, group, form="markdown").splitlines()
    width = 3 + len(listing.RESULTS)
    for line in (header, rule, *rows):
        assert line.startswith("| ")
        assert line.endswith(" |")
        assert line.count("|") == width + 1
    assert set(rule) == set("|- ")
    assert rows[3].split()[1] == "b0"


def test_beside_a_table_for_programs_nothing_else_is_on_the_output(group, capsys, tmp_path):
    path = group / "a2" / "run.json"
    path.write_text(path.read_text().replace('"status": "finished"', '"status": "stopped"'))
    listing.print_table(group, tmp_path / "all.csv", "json", "seed")
    told = capsys.readouterr()
    assert len(json.loads(told.out)) == 2
    assert "not counted: a2" in told.err
    assert f"written: {tmp_path / 'all.csv'}" in told.err
    assert len(pd.read_csv(tmp_path / "all.csv")) == 4  # every run, whatever the table shows
