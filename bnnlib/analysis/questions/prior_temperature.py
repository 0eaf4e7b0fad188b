"""Is there a cold-posterior effect here, and what do prior, start and draws change?

A *knob* is what the runs of a comparison differ in, and a *setting* its value. All runs of a knob
are compared, paired by seed, with those of the library's defaults (:data:`DEFAULTS`), in each state
of :mod:`bnnlib.analysis.questions.convergence` that both have. Runs of that question are read
along: the defaults themselves, other prior deviations, and the twin.

A ``kl_weight`` below 1 counts each image 1/kl_weight times and leaves the prior as it is. A *cold
posterior* of temperature T (Wenzel et al. 2020) raises likelihood and prior to the power 1/T; with
a normal prior that is ``kl_weight`` T and a prior deviation multiplied by √T.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis.questions import convergence
from bnnlib.analysis.questions.convergence import CONVERGED, LONG, SHORT, STOPPED, TEN
from bnnlib.analysis.questions.seeds import once, over_seeds, paired
from bnnlib.analysis.style import legend_above, line, plain_log, set_style, subplots
from bnnlib.errors import RecordError
from bnnlib.names import in_order

Records = Sequence[Mapping[str, Any]]
DEFAULTS = {"kl_weight": 1.0, "prior_stddev": 1.0, "posterior_stddev": 0.05, "train_draws": 1.0}
TFP_START = 0  # `posterior_stddev` 0 stands for TFP's own start, about 0.05
COLD = "cold"  # a knob of two parameters: the temperature of likelihood and prior
TWIN = "twin"
MODELS = ("BNN_FC_flip", "BNN_FC_nonflip")
# What is compared, said before anything was run.
COMPARED = ("accuracy", "nll", "ece_debiased", "temperature", "auroc_near", "auroc_far")
# The knobs with their words on an axis and in a sentence.
KNOBS = {
    "kl_weight": "KL weight",
    COLD: "temperature of the posterior",
    "prior_stddev": "deviation of the prior",
    "posterior_stddev": "first deviation of the posterior",
    "train_draws": "draws a step",
}
SCORES = {
    "accuracy": "accuracy",
    "nll": "NLL (nats an image)",
    "ece_debiased": "debiased ECE",
    "temperature": "fitted temperature",
    "auroc_near": "AUROC, near sets",
    "auroc_far": "AUROC, far sets",
    "kl_per_image": "KL(q‖p)/N (nats an image)",
}
STATES = (CONVERGED, STOPPED, TEN)
_WHOSE = ["knob", "setting", "model", "state", "score"]


def make(records: Records) -> dict[str, tuple[pd.DataFrame, Any]]:
    """The tables of the question by name, each with what draws it.

    Args:
        records: compact, of this question's runs and of the question of convergence.
    """
    found = scores(records)
    table = settings(found)
    return {
        "settings": (table, draw_kl_weight),
        "others": (table[~table.knob.isin(["kl_weight", COLD, TWIN])], draw_others),
        "differences": (once(differences(found)), None),
        "runs": (runs(records), None),
    }


# --- Tables --------------------------------------------------------------------------------------


def setting_of(parameters: Mapping[str, Any]) -> tuple[str, float]:
    """The knob that a run turns, and how far; ``("", 1)`` for a run of the defaults.

    Raises:
        RecordError: the run differs from the defaults in what is no knob of this question.
    """
    own = {name: float(parameters[name]) for name in DEFAULTS}
    if own["posterior_stddev"] == TFP_START:
        own["posterior_stddev"] = DEFAULTS["posterior_stddev"]
    turned = {name: value for name, value in own.items() if value != DEFAULTS[name]}
    if not turned:
        return "", 1.0
    if len(turned) == 1:
        return next(iter(turned.items()))
    weight, deviation = own["kl_weight"], own["prior_stddev"]
    if set(turned) == {"kl_weight", "prior_stddev"} and math.isclose(
        deviation**2, weight, rel_tol=1e-3
    ):
        return COLD, weight
    raise RecordError(
        f"{', '.join(f'{k} = {v:g}' for k, v in turned.items())}: expected one of "
        f"{', '.join(DEFAULTS)} off its default, or a prior_stddev of the root of kl_weight"
    )


def ours(records: Records) -> list[Mapping[str, Any]]:
    """The records of the dense networks in the two trainings, without what is no part of this."""
    return [
        one
        for one in records
        if one["parameters"]["model"] in MODELS and one["run"].partition("/")[0] in (LONG, SHORT)
    ]


def scores(records: Records) -> pd.DataFrame:
    """Every score of every run in each state that it has.

    Returns:
        Columns ``knob``, ``setting``, ``model``, ``state``, ``score``, ``seed``, ``value``. Runs of
        the defaults stand under each knob that their network's other runs turn. ``kl_per_image`` is
        KL/N itself, whatever its weight.
    """
    columns = [*_WHOSE, "seed", "value"]
    by_setting: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for record in ours(records):
        by_setting.setdefault(setting_of(record["parameters"]), []).append(record)
    parts = []
    for (knob, setting), group in by_setting.items():
        table = convergence.states(convergence.looks(group))
        weight = group[0]["parameters"]["kl_weight"]
        if weight:
            table.loc[table.score == "kl_per_image", "value"] /= weight
        for name in [knob] if knob else [*DEFAULTS, COLD]:
            value = setting if knob else DEFAULTS.get(name, 1.0)
            parts.append(table.assign(knob=name, setting=value))
    found = pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)
    several = found.groupby(["knob", "model"]).setting.transform("nunique") > 1
    twins = [one for one in records if one["parameters"]["model"] == "CNN_FC"]
    twins = [one for one in twins if one["run"].startswith(f"{SHORT}/")]
    twin = convergence.states(convergence.looks(twins)).assign(knob=TWIN, setting=1.0)
    both = [one for one in (found[several], twin.reindex(columns=columns)) if len(one)]
    return _ordered(pd.concat(both)) if both else found


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Knobs, networks and states in their order, settings by size, then scores and seeds."""
    places = {
        "knob": [*KNOBS, TWIN],
        "model": in_order(table.model),
        "state": convergence.STATES,
        "score": list(dict.fromkeys([*SCORES, *table.score])),
    }
    keys = table.assign(
        **{name: table[name].map({v: i for i, v in enumerate(of)}) for name, of in places.items()}
    )
    order = keys.reset_index(drop=True).sort_values(
        ["knob", "model", "state", "setting", "score", "seed"], kind="stable"
    )
    return table.iloc[order.index].reset_index(drop=True)


def settings(found: pd.DataFrame) -> pd.DataFrame:
    """Mean, 95 % interval over seeds and number of seeds of each score in each setting and state.

    Args:
        found: of :func:`scores`.
    """
    return over_seeds(found, _WHOSE)


def differences(found: pd.DataFrame) -> pd.DataFrame:
    """What is compared, paired by seed.

    Args:
        found: of :func:`scores`.

    Returns:
        Columns ``what`` (``less defaults``; ``less KL weight alone``, of a cold posterior;
        ``stopped less converged``), ``knob``, ``setting``, ``model``, ``state``, ``score``,
        ``mean``, ``low``, ``high``, ``seeds``, ``repeats``: whether the row compares a network with
        itself, or what the row of the converged compares, because no network of it stopped early.
    """
    ends = convergence.at_end(found, ["knob", "setting", "model"])
    table = found[found.score.isin(COMPARED) & (found.knob != TWIN)]
    default = table.setting == table.knob.map({**DEFAULTS, COLD: 1.0})
    turned = table[~default]
    weighed = turned[turned.knob == "kl_weight"].drop(columns="knob")
    by_state = {state: rows for state, rows in turned.groupby("state")}
    none = turned[:0]
    stopped = by_state.get(STOPPED, none)
    ended = by_state.get(CONVERGED, none).drop(columns="state")
    made = [
        paired(turned, table[default].drop(columns="setting"), _WHOSE).assign(what="less defaults"),
        paired(turned[turned.knob == COLD], weighed, _WHOSE).assign(what="less KL weight alone"),
        paired(stopped, ended, _WHOSE).assign(what="stopped less converged"),
    ]
    made = [one for one in made if len(one)]
    columns = ["what", *_WHOSE, "mean", "low", "high", "seeds", "repeats"]
    if not made:
        return pd.DataFrame(columns=columns)
    all_ = pd.concat(made, ignore_index=True)
    return all_.assign(repeats=[_repeats(row, ends) for row in all_.itertuples()])[columns]


def _repeats(row: Any, ends: set[tuple[Any, ...]]) -> bool:
    other = {
        "less defaults": (row.knob, {**DEFAULTS, COLD: 1.0}[row.knob], row.model),
        "less KL weight alone": ("kl_weight", row.setting, row.model),
    }.get(row.what)
    networks = {(row.knob, row.setting, row.model), other} - {None}
    return row.state == STOPPED and networks <= ends


def runs(records: Records) -> pd.DataFrame:
    """A row a run, those read along too: setting, end, whether KL stands still, seconds, commit."""
    whose = [setting_of(one["parameters"]) for one in ours(records)]
    table = pd.DataFrame(whose, columns=["knob", "setting"])
    return pd.concat([convergence.trained(ours(records)), table], axis=1)


# --- Pictures ------------------------------------------------------------------------------------

_STATES: dict[str, dict[str, Any]] = {
    CONVERGED: {"linestyle": "-"},
    STOPPED: {"linestyle": "none", "markerfacecolor": "0.75", "markersize": 9, "zorder": 1},
    TEN: {"linestyle": (0, (2, 2)), "markerfacecolor": "white"},
}


def draw_kl_weight(table: pd.DataFrame) -> Figure:
    """Six scores against the KL weight, and against the temperature of a cold posterior.

    Args:
        table: of :func:`make`. Bars are 95 % intervals over seeds; the dotted line is the twin
            after ten epochs of the defaults.
    """
    set_style()
    figure, axes = subplots(2, 3, figsize=(12.5, 7.6), sharex=True, layout="constrained")
    shown = [score for score in SCORES if score != "kl_per_image"]
    lines = table[table.knob.isin(["kl_weight", COLD])]
    models = in_order(lines.model)
    for axis, score in zip(axes.flat, shown, strict=True):
        here = lines[lines.score == score]
        for (knob, model, state), rows in here.groupby(["knob", "model", "state"], sort=False):
            alone = state == STOPPED and len(rows) < 2  # at the defaults, where it is the end
            if alone or (knob == COLD and state != CONVERGED):
                continue
            style = line(model, models) | _STATES[state]
            style["label"] = f"{model}, {state}"
            if knob == COLD:
                style |= {"linestyle": (0, (5, 1, 1, 1)), "marker": "*", "markersize": 11}
                style |= {"color": "black", "markeredgecolor": "black"}
                style["label"] = f"{model}, prior cooled too, {state}"
            _with_bars(axis, rows.setting, rows, style)
        twin = table[(table.knob == TWIN) & (table.score == score)]
        if len(twin):
            style = {"color": "0.35", "linestyle": ":", "linewidth": 1.6}
            axis.axhline(twin["mean"].iloc[0], **style, label="CNN_FC, ten epochs")
        if score == "temperature":
            axis.axhline(1.0, color="0.4", linewidth=1)
        plain_log(axis, "x")
        weights = sorted(set(lines.setting))
        axis.set_xticks(weights, [f"{weight:g}" for weight in weights])
        axis.set_ylabel(SCORES[score])
    for axis in axes[-1]:
        axis.set_xlabel("KL weight (1: the ELBO)")
    legend_above(figure, columns=3)
    return figure


def said(knob: str, setting: float) -> str:
    """A setting with a word where it is the default."""
    default = DEFAULTS.get(knob, 1.0) == setting
    return f"{setting:g}" + (" (default)" if default else "")


def _with_bars(axis: Any, x: Iterable[float], rows: pd.DataFrame, style: dict[str, Any]) -> None:
    """Means with their intervals; where none is known, the mean alone."""
    middle = rows["mean"].to_numpy()
    ends = np.nan_to_num([middle - rows.low, rows.high - middle])
    axis.errorbar(list(x), middle, yerr=ends, elinewidth=1.2, **style)


def draw_others(table: pd.DataFrame) -> Figure:
    """Scores in the settings of the other knobs, a row a score and a column a knob.

    Args:
        table: of :func:`make`, without the KL weight. Bars are 95 % intervals over seeds.
    """
    set_style()
    knobs = [knob for knob in KNOBS if knob in set(table.knob)]
    shown = ("nll", "ece_debiased", "temperature", "auroc_near")
    figure, axes = subplots(
        len(shown),
        len(knobs),
        figsize=(1.2 + 3.7 * len(knobs), 2.3 * len(shown) + 0.9),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    models = in_order(table.model)
    for column, knob in enumerate(knobs):
        of_knob = table[table.knob == knob]
        values = sorted(set(of_knob.setting))
        for row, score in enumerate(shown):
            axis = axes[row, column]
            kinds = [(model, state) for model in models for state in (TEN, CONVERGED)]
            for place, (model, state) in enumerate(kinds):
                rows = of_knob[
                    (of_knob.model == model) & (of_knob.state == state) & (of_knob.score == score)
                ]
                if rows.empty:
                    continue
                style = line(model, models) | _STATES[state] | {"linestyle": "none"}
                style["label"] = f"{model}, {state}"
                x = [values.index(one) + 0.15 * (place - 1.5) for one in rows.setting]
                _with_bars(axis, x, rows, style)
            if score == "temperature":
                axis.axhline(1.0, color="0.4", linewidth=1)
            axis.set_xlim(-0.6, len(values) - 0.4)
            axis.set_xticks(
                range(len(values)), [said(knob, one).replace(" ", "\n") for one in values]
            )
            if column == 0:
                axis.set_ylabel(SCORES[score].replace(" (", "\n("), fontsize=11)
        axes[-1, column].set_xlabel(KNOBS[knob])
    legend_above(figure, columns=2)
    return figure
