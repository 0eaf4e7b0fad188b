"""One odd run never takes the others' comparison along: every table, figure and sentence stands.

Each case puts one odd run, or several, into a group of good ones. All that notebooks/02_calibration
shows is then made, and the good models' rows must be those of the group without the odd run.
"""

import json
import re
import warnings

import numpy as np
import pandas as pd
import pytest

from bnnlib import __main__ as program
from bnnlib.analysis import figures, findings, scaling, tables
from bnnlib.errors import RecordError
from bnnlib.record.files import read_npz, write_npz
from tests.analysis.records import random_probs, write_run

LABELS = np.random.default_rng(0).integers(0, 3, 40)
ODD = "odd"


def sets(seed, draws=None, names=("test", "holdout", "rotate-30", "noise")):
    return {
        name: (random_probs([seed, i], num_draws=draws), None if name == "noise" else LABELS)
        for i, name in enumerate(names)
    }


def good_runs(folder):
    write_run(folder / "c0", "CNN_FC", 0, sets(0))
    write_run(folder / "c1", "CNN_FC", 1, sets(1))
    write_run(folder / "b0", "BNN_FC_flip", 0, sets(3, 4))
    write_run(folder / "b1", "BNN_FC_flip", 1, sets(4, 4))


def surely_wrong(seed=9, draws=None, **changes):
    """Sets whose first ten test images have probability 0 of their label."""
    made = sets(seed, draws, **changes)
    probs = made["test"][0].copy()
    ten = np.arange(10)
    probs[..., ten, :] = np.eye(3)[(LABELS[:10] + 1) % 3]
    return made | {"test": (probs, LABELS)}


def change_arrays(folder, change):
    arrays = read_npz(folder / "predictions.npz", "predictions")
    write_npz(folder / "predictions.npz", change(arrays))


def change_record(folder, change):
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(change(record)))


def infinite_twin(group):
    write_run(group / ODD, "CNN_conv", 0, surely_wrong())
    write_run(group / "odd-too", "BNN_conv_flip", 0, surely_wrong(10, 4))


def infinite_beside_a_finite_twin(group):
    write_run(group / ODD, "CNN_conv", 0, surely_wrong())
    write_run(group / "odd-too", "BNN_conv_flip", 0, sets(11, 4))


def infinite_seed_of_two(group):
    write_run(group / ODD, "CNN_conv", 0, surely_wrong())
    write_run(group / "odd-too", "CNN_conv", 1, sets(12))


def the_test_set_alone(group):
    write_run(group / ODD, "CNN_conv", 0, sets(13, names=("test",)))
    write_run(group / "odd-too", "BNN_conv_flip", 0, sets(14, 4))


def nothing_held_out(group):
    names = ("test", "rotate-30", "noise")
    write_run(group / ODD, "BNN_conv_flip", 0, sets(15, 4, names))


def scores_that_are_null(group):
    """As records of before schema 5 have for infinity."""
    write_run(group / ODD, "CNN_conv", 0, surely_wrong())
    none = dict.fromkeys(("nll", "accuracy", "temperature", "images_per_second"))
    change_record(
        group / ODD,
        lambda r: (
            r
            | {
                "metrics": r["metrics"] | none,
                "evaluation": [row | none for row in r["evaluation"]],
            }
        ),
    )


def no_predictions(group):
    write_run(group / ODD, "CNN_conv", 0, sets(16))
    (group / ODD / "predictions.npz").unlink()


def damaged_predictions(group):
    write_run(group / ODD, "CNN_conv", 0, sets(17))
    (group / ODD / "predictions.npz").write_bytes(b"PK")


def damaged_record(group):
    (group / ODD).mkdir()
    (group / ODD / "run.json").write_text("{")


def a_set_without_its_array(group):
    write_run(group / ODD, "CNN_conv", 0, sets(18))
    change_arrays(group / ODD, lambda a: {k: v for k, v in a.items() if "noise/mean" not in k})


def a_set_that_the_record_lists_and_the_file_lacks(group):
    write_run(group / ODD, "CNN_conv", 0, sets(19))
    change_arrays(group / ODD, lambda a: {k: v for k, v in a.items() if "rotate" not in k})


def predictions_that_are_nan(group):
    write_run(group / ODD, "CNN_conv", 0, sets(20))
    change_arrays(
        group / ODD,
        lambda a: a | {"test/mean_probs": np.full_like(a["test/mean_probs"], np.nan)},
    )


def a_foreign_set_that_is_nan(group):
    write_run(group / ODD, "CNN_conv", 0, sets(21))
    change_arrays(
        group / ODD,
        lambda a: a | {"noise/mean_probs": np.full_like(a["noise/mean_probs"], np.nan)},
    )


def other_foreign_images(group):
    """One seed was asked of fewer foreign images: its model's runs are no ensemble of that set."""
    write_run(group / "odd-too", "CNN_conv", 0, sets(22))
    made = sets(23)
    write_run(group / ODD, "CNN_conv", 1, made | {"noise": (made["noise"][0][:30], None)})


def fewer_test_images(group):
    made = {name: (p[:30], None if y is None else y[:30]) for name, (p, y) in sets(22).items()}
    write_run(group / ODD, "CNN_conv", 0, made)


def other_labels(group):
    made = {n: (p, None if y is None else (y + 1) % 3) for n, (p, y) in sets(25).items()}
    write_run(group / ODD, "CNN_FC", 2, made)


def other_classes(group):
    made = {
        name: (p[..., :2] / p[..., :2].sum(axis=-1, keepdims=True), None if y is None else y % 2)
        for name, (p, y) in sets(26).items()
    }
    write_run(group / ODD, "CNN_conv", 0, made)


def other_data_set(group):
    """As many images with the same labels, so that only its name tells it apart."""
    write_run(group / ODD, "CNN_conv", 0, sets(27), dataset="folder/mine.npz")


CASES = [
    *(infinite_twin, infinite_beside_a_finite_twin, infinite_seed_of_two, the_test_set_alone),
    *(nothing_held_out, scores_that_are_null, no_predictions, damaged_predictions, damaged_record),
    *(a_set_without_its_array, a_set_that_the_record_lists_and_the_file_lacks),
    *(predictions_that_are_nan, a_foreign_set_that_is_nan, other_foreign_images),
]


def everything(path):
    """Every table, figure and sentence of notebooks/02_calibration, by name."""
    group = tables.Group(path)
    test, shifted, foreign = group.predictions(), group.by_set("shift"), group.by_set("ood")
    scores, differences = tables.scores(test, 50), tables.differences(test, 50)
    bins, entropies = tables.reliability(test), tables.entropies(test)
    curves, severities = tables.risk_coverage(test), tables.shifts(test, shifted, 50)
    shift_differences = tables.shift_differences(shifted, 50)
    detection, ood_differences = (
        tables.ood(test, foreign, 50),
        tables.ood_differences(test, foreign),
    )
    histograms, roc = tables.ood_histograms(test, foreign), tables.roc(test, foreign)
    parts, convergence = (
        tables.uncertainties(test, shifted, foreign),
        tables.convergence(group.by_draws()),
    )
    verdict = findings.verdict(
        scores, severities, detection, (differences, shift_differences, ood_differences)
    )
    made = {
        "verdict": (differences, None, verdict),
        "scores": (scores, figures.comparison_table, findings.scores(scores, differences)),
        "differences": (differences, None, ""),
        "accuracy": (
            scores,
            figures.accuracy_against_nll,
            findings.accuracy_against_nll(scores),
        ),
        "bins": (bins, figures.reliability_diagrams, findings.reliability(bins)),
        "entropies": (
            entropies,
            figures.entropy_of_right_and_wrong,
            findings.entropies(entropies),
        ),
        "curves": (
            curves,
            figures.risk_against_coverage,
            findings.risk_coverage(curves, scores, differences),
        ),
        "severities": (
            severities,
            figures.against_severity,
            findings.shifts(severities, shift_differences),
        ),
        "corruptions": (tables.by_severities(severities)[1], figures.corruptions, ""),
        "shift_differences": (shift_differences, None, ""),
        "ood": (histograms, figures.ood_histograms, findings.ood(detection, ood_differences)),
        "ood_differences": (ood_differences, None, ""),
        "roc": (roc, figures.roc_curves, findings.false_alarms(detection)),
        "parts": (
            parts,
            figures.epistemic_against_aleatoric,
            findings.uncertainties(parts),
        ),
        "draws": (
            convergence,
            figures.convergence_with_draws,
            findings.convergence(convergence),
        ),
    }
    for table, draw, _ in made.values():
        if draw is not None and len(table):
            picture = draw(table)
            picture.to_html() if draw is figures.comparison_table else picture.canvas.draw()
    return group, made


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """What the good runs show alone."""
    group = tmp_path_factory.mktemp("without") / "g"
    good_runs(group)
    return everything(group)[1]


@pytest.mark.parametrize("odd", CASES, ids=lambda case: case.__name__)
def test_the_others_comparison_stands(odd, tmp_path, without):
    good_runs(tmp_path / "g")
    odd(tmp_path / "g")
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        _, made = everything(tmp_path / "g")
    good = {"CNN_FC", "BNN_FC_flip", "CNN_FC ensemble(2)", "BNN_FC_flip ensemble(2)"}
    for name, (expected, _, _) in without.items():
        if not len(expected):
            continue
        table = made[name][0]
        found = table[table.model.isin(good)].reset_index(drop=True)
        alone = expected[expected.model.isin(good)].reset_index(drop=True)
        pd.testing.assert_frame_equal(found, alone, check_dtype=False, obj=f"{name} of the others")
    for name, (_, _, text) in made.items():
        assert "nan" not in text.lower().replace("nanny", ""), f"{name}: {text}"


LEFT_OUT = {
    no_predictions: "no readable predictions",
    damaged_predictions: "no readable predictions",
    damaged_record: "no readable run record",
    a_set_without_its_array: "'noise' has no mean_probs",
    a_set_that_the_record_lists_and_the_file_lacks: "no predictions of rotate-30",
    predictions_that_are_nan: "not finite in 40 of 40 rows",
    a_foreign_set_that_is_nan: "not finite in 40 of 40 rows",
    other_foreign_images: "judged on other images or labels of 'noise'",
}


@pytest.mark.parametrize("odd", CASES, ids=lambda case: case.__name__)
def test_what_is_left_out_is_named_with_the_reason_and_nothing_else_is(odd, tmp_path):
    good_runs(tmp_path / "g")
    odd(tmp_path / "g")
    group = tables.Group(tmp_path / "g")
    if odd not in LEFT_OUT:
        assert group.left_out == {}
        return
    (reason,) = group.left_out.values()
    assert LEFT_OUT[odd] in reason
    (path,) = group.left_out
    assert path not in set(group.runs.path)
    # Of two runs of a model that differ neither is the usual one: the first stays.
    assert path.endswith(ODD) or odd is other_foreign_images


@pytest.mark.parametrize(
    ("odd", "named"),
    [
        *(
            (case, r"tiny \(test set 1\): b0, b1, c0, c1; tiny \(test set 2\): odd")
            for case in (fewer_test_images, other_labels, other_classes)
        ),
        (other_data_set, r"tiny: b0, b1, c0, c1; mine\.npz: odd"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_runs_of_several_data_or_test_sets_are_refused_and_named(odd, named, tmp_path):
    good_runs(tmp_path / "g")
    odd(tmp_path / "g")
    with pytest.raises(RecordError, match=rf"2 data sets or test sets .*{named}") as refused:
        tables.Group(tmp_path / "g")
    # What it says to do helps.
    (remedy,) = re.findall(r"for example (\S+)\)?, or give each a folder", str(refused.value))
    assert tables.Group(tmp_path / "g", remedy).runs.run_id.tolist()
    kept = tables.Group(tmp_path / "g", "run_id=b0,b1,c0,c1; dataset=tiny")
    assert len(kept.runs) == 4


def test_where_every_nll_is_infinite_all_else_is_shown(tmp_path):
    write_run(tmp_path / "g" / "a", "CNN_FC", 0, surely_wrong())
    write_run(tmp_path / "g" / "b", "BNN_FC_flip", 0, surely_wrong(10, 4))
    _, made = everything(tmp_path / "g")
    text = made["scores"][2]
    assert "lowest NLL: infinite for every model;" in text
    assert "Infinite NLL, from a label of probability 0: BNN_FC_flip and CNN_FC." in text
    assert "; NLL unknown, since both are infinite;" in text
    assert "∞ [∞, ∞]" in figures.comparison_table(made["scores"][0]).to_html()
    legend = made["accuracy"][1](made["accuracy"][0]).axes[0].get_legend()
    assert [one.get_text() for one in legend.get_texts()] == [
        "BNN_FC_flip (NLL ∞)",
        "CNN_FC (NLL ∞)",
    ]


def test_an_infinite_nll_loses_to_a_finite_one_and_stands_at_the_edge(tmp_path):
    write_run(tmp_path / "g" / "a", "CNN_FC", 0, surely_wrong())
    write_run(tmp_path / "g" / "b", "BNN_FC_flip", 0, sets(11, 4))
    _, made = everything(tmp_path / "g")
    assert "; NLL −∞ [−∞, −∞], better;" in made["scores"][2]
    assert "lowest NLL: **BNN_FC_flip**" in made["scores"][2]
    axis = made["accuracy"][1](made["accuracy"][0]).axes[0]
    low, high = axis.get_xlim()
    assert high - low < 10  # nats: no error bar reaches for infinity


def test_a_single_infinite_image_may_be_missed_by_a_resample(tmp_path):
    one_wrong = sets(9)
    probs = np.full((40, 3), 0.1) + 0.7 * np.eye(3)[LABELS]
    probs[0] = np.eye(3)[(LABELS[0] + 1) % 3]
    write_run(tmp_path / "g" / "a", "CNN_FC", 0, one_wrong | {"test": (probs, LABELS)})
    write_run(tmp_path / "g" / "b", "BNN_FC_flip", 0, sets(11, 4))
    _, made = everything(tmp_path / "g")
    nll = made["scores"][0].set_index(["model", "score"]).loc[("CNN_FC", "nll")]
    assert nll["mean"] == nll.high == np.inf
    assert np.isfinite(nll.low)


def test_no_run_that_can_be_compared_says_why(tmp_path):
    write_run(tmp_path / "g" / "a", "CNN_FC", 0, sets(0))
    (tmp_path / "g" / "a" / "predictions.npz").write_bytes(b"")
    with pytest.raises(RecordError, match=r"no finished run among 1; .*no readable predictions"):
        tables.Group(tmp_path / "g")
    (tmp_path / "g" / "a" / "run.json").write_text("")
    with pytest.raises(RecordError, match=r"no finished run among 0; .*no readable run record"):
        tables.Group(tmp_path / "g")


def test_draws_that_bring_the_nll_to_a_finite_value(tmp_path):
    rows = [
        {"model": "BNN_FC_flip", "run": "g/b", "draws": draws, "score": score, "value": value}
        for draws, nll in ((1, np.inf), (2, np.inf), (4, 0.5))
        for score, value in (("nll", nll), ("accuracy", 0.9), ("ece", 0.1))
    ]
    table = pd.DataFrame(rows)
    assert findings.convergence(table) == (
        "- **BNN_FC_flip**: NLL by the number of draws: ∞ of 1, ∞ of 2, 0.5000 of 4."
    )
    figures.convergence_with_draws(table).canvas.draw()


def test_training_that_logged_infinity_or_nothing_known_is_drawn():
    steps = pd.DataFrame(
        {
            "epoch": [0.5, 1.0, 1.5],
            "loss": [np.inf, 2.0, np.nan],
            "nll": [np.inf, np.inf, np.inf],
            "kl": [np.nan, np.nan, np.nan],
            "images_per_second": [100.0, 0.0, np.nan],
        }
    )
    figures.training_curves(steps).canvas.draw()


def test_the_table_shows_the_others_beside_a_damaged_record_and_fails(tmp_path, capsys):
    good_runs(tmp_path / "g")
    damaged_record(tmp_path / "g")
    write_run(tmp_path / "g" / "inf", "CNN_conv", 0, surely_wrong())
    assert program.main(["table", str(tmp_path / "g"), "--csv", str(tmp_path / "t.csv")]) == 1
    told = capsys.readouterr()
    header, *rows, last = told.out.splitlines()
    assert [row.split()[0] for row in rows] == ["b0", "b1", "c0", "c1", "inf"]
    assert [row.split()[1] for row in rows] == [*["BNN_FC_flip"] * 2, *["CNN_FC"] * 2, "CNN_conv"]
    assert rows[-1].split()[header.split().index("nll")] == "inf"
    assert last.startswith("written:")
    assert "no readable run record" in told.err
    assert pd.read_csv(tmp_path / "t.csv").nll.tolist()[-1] == np.inf


def test_a_run_without_a_speed_is_no_measurement_and_leaves_the_others(tmp_path):
    for name, seed in (("a", 0), ("b", 1), ("slow", 2)):
        write_run(tmp_path / "g" / name, "CNN_FC", seed, sets(seed))
    change_record(
        tmp_path / "g" / "slow",
        lambda r: r | {"metrics": {k: v for k, v in r["metrics"].items() if k[0] != "i"}},
    )
    _, left_out = scaling.timings(tmp_path / "g")
    why = left_out.set_index("run_id").why_not.to_dict()
    assert why == {"a": "cores unknown", "b": "cores unknown", "slow": "speed unknown"}


@pytest.mark.parametrize("odd", ["damaged", "without evaluation rows"])
def test_an_odd_run_leaves_the_scaling_of_the_others_as_it_is(tmp_path, odd):
    good_runs(tmp_path / "g")
    expected = scaling.calibration(tmp_path)
    timed, left_out = scaling.timings(tmp_path)
    folder = tmp_path / "g" / ODD
    write_run(folder, "CNN_conv", 0, sets(5))
    if odd == "damaged":
        (folder / "run.json").write_text("{")
    else:
        change_record(folder, lambda record: record | {"evaluation": []})
    pd.testing.assert_frame_equal(scaling.calibration(tmp_path), expected)
    now, out = scaling.timings(tmp_path)
    if odd == "damaged":
        pd.testing.assert_frame_equal(now, timed, check_dtype=False)
        assert out.why_not.tolist() == [*left_out.why_not, "record damaged"]
        assert out.path.tolist()[-1] == str(folder)
        assert "record damaged" in findings_of_scaling(now, out)
        assert not scaling.profiles(tmp_path).shape[0]


def findings_of_scaling(timed, left_out):
    from bnnlib.analysis.scaling import findings as of_scaling

    return of_scaling.efficiency(scaling.efficiencies(timed), left_out)
