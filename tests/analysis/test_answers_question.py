"""The README's figure: values and intervals of its three panels, worked by hand."""

import numpy as np
import pandas as pd
import pytest

from bnnlib.analysis.questions import answers


def rows(columns, *values):
    return pd.DataFrame([dict(zip(columns.split(), one, strict=True)) for one in values])


@pytest.fixture
def table():
    path = rows(
        "group model prior score epoch mean low high",
        ("converged", "BNN_FC_flip", "1", "ece_debiased", 100, 0.02, 0.01, 0.03),
        ("converged", "BNN_FC_flip", "0.1", "ece_debiased", 100, 0.5, 0.5, 0.5),
        ("converged", "BNN_FC_flip", "1", "nll", 100, 0.5, 0.5, 0.5),
        ("ten_epochs", "BNN_FC_flip", "1", "ece_debiased", 10, 0.04, 0.03, 0.05),
        ("ten_epochs", "CNN_FC", np.nan, "ece_debiased", 10, 0.06, 0.05, 0.07),
        ("converged", "CNN_FC", np.nan, "ece_debiased", 100, 0.08, 0.07, 0.09),
    )
    noise = rows(
        "state estimator ranks noise predicted low high given",
        *(
            (state, estimator, ranks, noise, predicted, 0.5, 2.0, ranks == 1)
            for state in ("initial", "converged")
            for estimator, ranks, noise, predicted in (
                ("flipout", 1, 0.25, 0.25),
                ("reparameterization", 1, 0.5, 0.5),
                ("reparameterization", 8, 0.375, 0.3),
            )
        ),
    )
    shared = {"network": "BNN_FC", "bayesian_layers": "first", "noise_streams": "own"}
    noise = noise.assign(**shared, global_batch=64)
    simulated = rows(
        "source nodes ms low high efficiency",
        ("recursive doubling, computing varies as measured", 64, 10.0, 8.0, 12.5, 0.5),
        ("recursive doubling, computing varies as measured", 512, 10.0, 8.0, 12.5, 0.25),
        ("recursive doubling", 64, 6.25, 6.25, 6.25, 0.8),
        ("α-β and a wait a doubling", 64, 12.5, np.nan, np.nan, 0.4),
        ("published, by eye", 8, 6.4, np.nan, np.nan, 0.75),
    )
    simulations = rows(
        "ranks steps spread", (64, 128, "as measured"), (512, 4, "as measured"), (64, 3, "none")
    )
    return answers.table(path, noise, simulated, simulations)


def of(table, series):
    return table[table.series == series].drop(columns=["panel", "series"]).to_numpy(float)


def test_calibration_is_of_one_prior_and_its_twin(table):
    assert of(table, "Bayesian, a long training").tolist() == [[100, 0.02, 0.01, 0.03]]
    assert of(table, "deterministic twin, ten epochs").tolist() == [[10, 0.06, 0.05, 0.07]]
    assert of(table, "deterministic twin, a long training").tolist() == [[100, 0.08, 0.07, 0.09]]


def test_noise_is_over_flipouts_and_so_is_the_interval_of_the_ratio_to_the_prediction(table):
    first, second = of(table, "converged")
    np.testing.assert_allclose(first, [1, 2.0, np.nan, np.nan])
    np.testing.assert_allclose(second, [8, 1.5, 0.5 * 0.3 / 0.25, 2.0 * 0.3 / 0.25])
    np.testing.assert_allclose(of(table, "converged, predicted from one rank")[:, 1], [2.0, 1.2])


def test_an_efficiency_has_the_interval_of_its_time(table):
    found = of(table, "simulated, computing as measured")
    few = [512, 0.25, np.nan, np.nan]  # of four steps: no interval
    np.testing.assert_allclose(found, [[64, 0.5, 0.4, 0.625], few])


def test_each_panel_shows_its_question_and_every_line(table):
    figure = answers.draw(table)
    assert [axis.get_title() for axis in figure.axes] == [one[0] for one in answers.PANELS.values()]
    told = [[text.get_text() for text in axis.get_legend().get_texts()] for axis in figure.axes]
    assert told[0] == [*table.series[table.panel == "calibration"].unique()]
    assert told[1] == [
        *("before training", "before training, predicted from one rank"),
        *("converged", "converged, predicted from one rank", "within 5 %"),
    ]
    assert told[2] == [*table.series[table.panel == "nodes"].unique()]
