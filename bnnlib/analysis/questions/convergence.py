"""When is a Bayesian network trained, and is it calibrated there?

Of each run there are three states, side by side: *ten epochs* of the library's defaults; *stopped*,
the look of the long training whose NLL on the images held out is least; and *converged*, that
training's end. A run whose KL still moves there is counted by :func:`told_trained`, and not left
out; *longer*, twice as many epochs, says whether the ELBO still falls there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bnnlib.analysis.questions.seeds import (
    by_side,
    comparisons,
    end_of,
    how_many,
    once,
    over_seeds,
    paired,
)
from bnnlib.analysis.style import legend_above, line, plain_log, set_style, subplots
from bnnlib.analysis.words import between, counted, listed, percent, side, span
from bnnlib.names import in_order, twin_of

Records = Sequence[Mapping[str, Any]]
LONG, SHORT = "converged", "ten_epochs"  # the study's groups, beside `longer`
TEN, STOPPED, CONVERGED, LONGER = "ten epochs", "stopped", "converged", "longer"
AT_THE_END = {SHORT: TEN, LONG: CONVERGED, "longer": LONGER}
STATES = (TEN, STOPPED, CONVERGED)
# What is shown of a look, with its words on an axis.
SCORES = {
    "kl_per_image": "KL(q‖p)/N (nats an image)",
    "nll": "NLL (nats an image)",
    "ece_debiased": "debiased ECE",
    "temperature": "temperature",
    "auroc_near": "AUROC, near sets",
}
# What is compared, said before anything was run.
COMPARED = ("accuracy", "nll", "ece_debiased", "auroc_near")
# Each state beside the twin's own; and the end, of which the twin has none worth keeping, beside
# the twin as early stopping keeps it, and as the defaults do. The last was added when the runs
# showed that the long training's rate, chosen for the posterior, suits the twin badly.
TWINS = (
    *((TEN, TEN), (STOPPED, STOPPED), (CONVERGED, CONVERGED)),
    *((CONVERGED, STOPPED), (CONVERGED, TEN)),
)
_BY = ["model", "prior", "state", "score"]


def make(records: Records) -> dict[str, tuple[pd.DataFrame, Any]]:
    """The tables of the question by name, each with what draws it."""
    found = looks(records)
    return {
        "path": (path(found), draw_path),
        "side_by_side": (side_by_side(found), draw_side_by_side),
        "differences": (once(differences(found)), None),
        "runs": (trained(records), None),
    }


# --- Tables --------------------------------------------------------------------------------------


def looks(records: Records) -> pd.DataFrame:
    """Every score of every look of every run.

    Returns:
        Columns ``group``, ``model``, ``prior`` (text, empty for a twin, which has none), ``seed``,
        ``epoch``, ``score``, ``value``.
    """
    rows = []
    for record in records:
        parameters = record["parameters"]
        whose = {
            "group": record["run"].partition("/")[0],
            "model": parameters["model"],
            "prior": f"{parameters['prior_stddev']:g}" if record["converged"] else "",
            "seed": parameters["seed"],
        }
        for look in _looks(record):
            for score, value in _scores(look, record["steps"]):
                if value is not None:
                    rows.append(whose | {"epoch": look["epoch"], "score": score, "value": value})
    columns = ["group", "model", "prior", "seed", "epoch", "score", "value"]
    return _ordered(pd.DataFrame(rows, columns=columns))


def _looks(record: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The looks at a run; its own evaluation is the last, whether or not it was looked at."""
    end = record["parameters"]["epochs"]
    last = {
        "epoch": end,
        "temperature": record["metrics"].get("temperature"),
        "rows": record["evaluation"],
    }
    return [*(look for look in record["looks"] if look["epoch"] < end), last]


def _scores(look: Mapping[str, Any], steps: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    rows = {row["set"]: row for row in look["rows"]}
    for score in ("accuracy", "nll", "ece", "ece_debiased", "epistemic"):
        yield score, rows["test"].get(score)
    yield "temperature", look["temperature"]
    yield "holdout_nll", rows.get("holdout", {}).get("nll")
    for group in ("near", "far"):
        values = [row["auroc_entropy"] for row in rows.values() if row.get("ood_group") == group]
        yield f"auroc_{group}", float(np.mean(values)) if values else None
    if look["epoch"] in steps["epoch"]:
        place = steps["epoch"].index(look["epoch"])
        yield "loss", steps["loss"][place]  # of the training batches of one epoch
        if any(steps["kl"]):
            yield "kl_per_image", steps["loss"][place] - steps["nll"][place]


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    """Networks in the study's order, wide priors first, then by seed and epoch."""
    places = {name: place for place, name in enumerate(in_order(table.model))}
    keys = pd.DataFrame(
        {
            "model": table.model.map(places),
            "prior": -pd.to_numeric(table.prior, errors="coerce").fillna(0.0),
            "seed": table.seed,
            "epoch": table.epoch,
        }
    )
    return table.loc[keys.sort_values([*keys], kind="stable").index].reset_index(drop=True)


def path(found: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds on the way: ``group``, ``model``, ``prior``, ``epoch``, ``score``, …."""
    return over_seeds(found, ["group", "model", "prior", "score", "epoch"])


def states(found: pd.DataFrame) -> pd.DataFrame:
    """The scores of each run in each state of :data:`STATES`, and the ``epoch`` of the state."""
    own = ["group", "model", "prior", "seed"]
    wide = found.pivot_table(index=[*own, "epoch"], columns="score", values="value", sort=False)
    wide = wide.reset_index()
    parts = []
    for (group, *_), run in wide.groupby(own, sort=False):
        last = run.loc[run.epoch.idxmax()]
        chosen = {AT_THE_END[group]: last} if group in AT_THE_END else {}
        looked_at = len(run) > 1 and run.get("holdout_nll", pd.Series([np.nan])).notna().any()
        if group == LONG and looked_at:
            chosen[STOPPED] = run.loc[run.holdout_nll.idxmin()]
        parts += [row.to_dict() | {"state": state} for state, row in chosen.items()]
    table = pd.DataFrame(parts)
    if table.empty:
        return pd.DataFrame(columns=[*_BY, "seed", "value"])
    table = table.melt(["model", "prior", "state", "seed"], [*wide.columns.drop(own)], "score")
    return table.dropna(subset="value").reset_index(drop=True)


def side_by_side(found: pd.DataFrame) -> pd.DataFrame:
    """Each network in each state: mean, 95 % interval over seeds, number of seeds."""
    return over_seeds(states(found), _BY)


def differences(found: pd.DataFrame) -> pd.DataFrame:
    """What is compared, paired by seed: states of one network, and networks with their twin.

    Returns:
        Columns ``what`` (``converged less stopped``, ``converged less stopped twin``), ``model``,
        ``prior``, ``score``, ``mean``, ``low``, ``high``, ``seeds``, ``repeats``: whether the row
        compares a network with itself, or what another row compares, because the network (or its
        twin) stopped at the end.
    """
    table = states(found)
    ends = at_end(table, ["model", "prior"])
    table = table[table.score.isin(COMPARED)]
    by_state = {state: rows.drop(columns="state") for state, rows in table.groupby("state")}
    by, made = ["model", "prior", "score"], []
    for one, other in ((CONVERGED, STOPPED), (CONVERGED, TEN), (STOPPED, TEN)):
        if one in by_state and other in by_state:
            found_ = paired(by_state[one], by_state[other], by)
            made.append(found_.assign(what=f"{one} less {other}"))
    none = table[:0].drop(columns="state")
    for state, other in TWINS:
        rows, others = by_state.get(state, none), by_state.get(other, none)
        bayesian = rows[rows.prior != ""]
        bayesian = bayesian.assign(twin=bayesian.model.map(twin_of))
        twins = others[others.prior == ""].drop(columns="prior").rename(columns={"model": "twin"})
        if len(bayesian) and len(twins):
            less = paired(bayesian, twins, [*by, "twin"]).drop(columns="twin")
            made.append(less.assign(what=f"{state} less {other} twin"))
    columns = ["what", *by, "mean", "low", "high", "seeds", "repeats"]
    if not made:
        return pd.DataFrame(columns=columns)
    all_ = pd.concat(made, ignore_index=True)
    return all_.assign(repeats=_repeats(all_, ends))[columns]


def at_end(table: pd.DataFrame, by: Sequence[str]) -> set[tuple[Any, ...]]:
    """The networks that did not stop early in any seed: stopped and converged are one there.

    Args:
        table: of :func:`states`, or of the like with columns `by`.
        by: columns that tell the networks apart, two or more.
    """
    epochs = table[table.score == "epoch"]
    stopped, ended = (epochs[epochs.state == state] for state in (STOPPED, CONVERGED))
    both = stopped.merge(ended, on=[*by, "seed"], suffixes=("", "_end"))
    same = (both.value == both.value_end).groupby([both[name] for name in by]).all()
    return set(same[same].index)


def _repeats(table: pd.DataFrame, ends: set[tuple[Any, ...]]) -> list[bool]:
    """Of each row, whether it is nothing or another row once *stopped* is called *converged*."""

    def called(state: str, whose: tuple[str, str]) -> str:
        return CONVERGED if state == STOPPED and whose in ends else state

    rows = list(zip(table.what, table.model, table.prior, table.score, strict=True))
    there, found = set(rows), []
    for what, model, prior, score in rows:
        one, _, other = what.partition(" less ")
        twin = " twin" if other.endswith(" twin") else ""
        one = called(one, (model, prior))
        whose = (twin_of(model) or "", "") if twin else (model, prior)
        other = called(other.removesuffix(" twin"), whose)
        itself = one == other and not twin
        name = f"{one} less {other}{twin}"
        found.append(itself or (name != what and (name, model, prior, score) in there))
    return found


def trained(records: Records) -> pd.DataFrame:
    """A row a run: its parameters, its end, whether it has converged, seconds, commit."""
    rows = []
    for record in records:
        parameters, posterior = record["parameters"], record["converged"]
        rows.append(
            {"run": record["run"], "model": parameters["model"]}
            | {"prior": f"{parameters['prior_stddev']:g}" if posterior else ""}
            | {name: parameters[name] for name in ("seed", "epochs")}
            | end_of(record)
        )
    return pd.DataFrame(rows)


# --- Pictures ------------------------------------------------------------------------------------


def draw_path(table: pd.DataFrame) -> Figure:
    """Scores against epochs, a row a score and a column a prior; the twin in each column.

    Args:
        table: of :func:`path`. Bands are 95 % intervals over seeds; dashed is the training of ten
            epochs at the library's defaults.
    """
    set_style()
    priors = [prior for prior in dict.fromkeys(table.prior) if prior]
    models = in_order(table.model)
    shown = {score: words for score, words in SCORES.items() if score in set(table.score)}
    figure, axes = subplots(
        len(shown),
        max(1, len(priors)),
        figsize=(max(6.0, 3.6 * len(priors)), 2.1 * len(shown) + 0.8),
        squeeze=False,
        sharex=True,
        sharey="row",
        layout="constrained",
    )
    for row, (score, words) in enumerate(shown.items()):
        for column, prior in enumerate(priors or [""]):
            axis = axes[row, column]
            here = table[(table.score == score) & table.prior.isin([prior, ""])]
            for (group, model), lines in here.groupby(["group", "model"], sort=False):
                style = line(model, models) | {"markersize": 4}
                if group not in (LONG, SHORT):
                    continue
                if group == SHORT:
                    style |= {"linestyle": (0, (2, 2)), "label": None, "marker": None}
                axis.plot(lines.epoch, lines["mean"], **style)
                band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
                axis.fill_between(lines.epoch, lines.low, lines.high, **band)
            plain_log(axis, "x")
            if score in ("kl_per_image", "temperature"):
                plain_log(axis, "y")
            if score == "temperature":
                axis.axhline(1.0, color="0.4", linewidth=1)
            if row == 0:
                axis.set_title(f"prior N(0, {prior}²)" if prior else "twin", fontsize=12)
            if row == len(shown) - 1:
                axis.set_xlabel("epochs")
            if column == 0:
                axis.set_ylabel(words.replace(" (", "\n("), fontsize=11)
    legend_above(figure, title="solid: the long training; dashed: ten epochs of the defaults")
    return figure


_MARKS = {TEN: ("o", "white"), STOPPED: ("s", "0.6"), CONVERGED: ("D", "black")}


def draw_side_by_side(table: pd.DataFrame) -> Figure:
    """The three states beside one another, a panel a score, a line a network and prior.

    Args:
        table: of :func:`side_by_side`. Bars are 95 % intervals over seeds.
    """
    set_style()
    scores = [score for score in SCORES if score != "kl_per_image" and score in set(table.score)]
    rows = list(dict.fromkeys(zip(table.model, table.prior, strict=True)))
    figure, axes = subplots(
        1,
        len(scores),
        figsize=(2.9 * len(scores) + 1.5, 0.55 * len(rows) + 1.6),
        squeeze=False,
        sharey=True,
        layout="constrained",
    )
    for axis, score in zip(axes[0], scores, strict=True):
        for state, (marker, fill) in _MARKS.items():
            of_state = table[(table.score == score) & (table.state == state)]
            values = of_state.set_index(["model", "prior"])
            for place, row in enumerate(rows):
                # An infinite NLL, of a label that a twin gives no probability, has no place.
                if row in values.index and np.isfinite(values.loc[row, "mean"]):
                    one = values.loc[row]
                    ends = np.nan_to_num([[one["mean"] - one.low], [one.high - one["mean"]]])
                    axis.errorbar(
                        one["mean"],
                        place + 0.22 * (STATES.index(state) - 1),
                        xerr=ends,
                        marker=marker,
                        color="black",
                        markerfacecolor=fill,
                        linestyle="none",
                        markersize=6,
                        linewidth=1.2,
                        label=state,
                    )
        axis.xaxis.set_major_locator(MaxNLocator(4))
        if score == "temperature":
            plain_log(axis, "x")
            axis.axvline(1.0, color="0.4", linewidth=1)
        axis.set_xlabel(SCORES[score])
        axis.grid(axis="y", visible=False)
    labels = [f"{model}, prior {prior}" if prior else model for model, prior in rows]
    axes[0, 0].set_yticks(range(len(rows)), labels)
    axes[0, 0].invert_yaxis()
    legend_above(figure)
    return figure


# --- Sentences -----------------------------------------------------------------------------------


def seeds(records: Records) -> str:
    """How many runs, seeds and images the answers rest on, and what of the study is missing."""
    table = trained(records)
    if table.empty:
        return "No run has finished yet."
    of = table[table.run.str.startswith(f"{LONG}/")]
    parts = [
        f"{_name(*key)} {counted(runs.seed.nunique(), 'seed')}"
        for key, runs in of.groupby(["model", "prior"], sort=False)
    ]
    hours = table.seconds.sum() / 3600
    return f"Long trainings: {'; '.join(parts)}. All {len(table)} runs: {hours:.2f} core-hours."


def told_trained(records: Records) -> str:
    """How many posteriors have converged, by group."""
    table = trained(records)
    table = table[table.prior != ""]
    parts = []
    for group, words in ((LONG, "the long training"), (SHORT, "ten epochs of the defaults")):
        runs = table[table.run.str.startswith(f"{group}/")]
        if len(runs):
            change = runs.kl_change.dropna().astype(float).abs()
            if change.empty:
                continue
            parts.append(
                f"after {words} {int(runs.converged.eq(True).sum())} of {len(runs)} posteriors "
                f"stand still (over the last tenth KL changed by {percent(change.min(), 1)} to "
                f"{percent(change.max(), 1)})"
            )
    return f"By the rule of 2 %: {'; '.join(parts)}." if parts else "No posterior has been trained."


def told_stopped(records: Records) -> str:
    """At which epoch the least NLL on the images held out stops each network."""
    table = states(looks(records))
    table = table[(table.state == STOPPED) & (table.score == "epoch")]
    parts = []
    for key, rows in table.groupby(["model", "prior"], sort=False):
        least, most = f"{rows.value.min():.0f}", f"{rows.value.max():.0f}"
        parts.append(f"{_name(*key)} {span(least, most)} ({counted(len(rows), 'seed')})")
    return f"Stopped after epochs: {'; '.join(parts)}." if parts else "No run was looked at yet."


def told_calibrated(records: Records, state: str = CONVERGED) -> str:
    """Debiased ECE and temperature in one state, and which networks are not calibrated there."""
    table = side_by_side(looks(records))
    here = table[(table.state == state) & (table.prior != "")]
    wide = {score: rows.set_index(["model", "prior"]) for score, rows in here.groupby("score")}
    if not {"temperature", "ece_debiased"} <= set(wide):
        return f"Nothing is known of the state *{state}*."
    kinds: dict[str, list[str]] = {}
    for key, row in wide["temperature"].iterrows():
        ece = wide["ece_debiased"].loc[key]
        where = side(row.low - 1, row.high - 1, 2)
        kind = {-1: "underconfident", 1: "overconfident", 0: "not told from calibrated by T"}[where]
        if row.seeds < 2:
            kind = "of one seed, so that nothing is claimed"
        kinds.setdefault(kind, []).append(
            f"{_name(*key)} (T {between(row['mean'], row.low, row.high, 2)}, "
            f"debiased ECE {between(ece['mean'], ece.low, ece.high)})"
        )
    return f"*{state}* — " + "; ".join(f"{kind}: {', '.join(n)}" for kind, n in kinds.items()) + "."


def _name(model: str, prior: str) -> str:
    return f"{model} under prior {prior}" if prior else model


def told_longer(records: Records) -> str:
    """Whether twice the epochs lower the loss any more: the largest fall, in parts of the loss."""
    table = states(looks(records))
    table = table[(table.score == "loss") & (table.prior != "")]
    wide = table.pivot_table(index=["model", "prior", "seed"], columns="state", values="value")
    if not {LONGER, CONVERGED} <= set(wide):
        return (
            "No run of twice the epochs has finished: whether the ELBO stands still is not shown."
        )
    fall = (1 - wide[LONGER] / wide[CONVERGED]).dropna()
    return (
        f"Twice the epochs lower the loss by {percent(fall.min(), 1)} to {percent(fall.max(), 1)} "
        f"({counted(len(fall), 'pair')} of equal seed)."
    )


def told_differences(records: Records, what: str, score: str) -> str:
    """One comparison of one score, network by network, each that repeats no other."""
    return _told(differences(looks(records)), what, score)


def told_compared(records: Records, what: str) -> str:
    """One comparison of every score, a paragraph each."""
    table = differences(looks(records))
    return "\n\n".join(dict.fromkeys(_told(table, what, score) for score in COMPARED))


def _told(table: pd.DataFrame, what: str, score: str) -> str:
    there = table[(table.what == what) & (table.score == score)]
    rows = once(there)
    if rows.empty:
        if len(there):
            return f"{what}: stopped and converged are one here, so that this repeats another."
        return f"{what}: nothing to compare yet."
    names = [_name(row.model, row.prior) for row in rows.itertuples()]
    finite = np.isfinite(rows["mean"].to_numpy(float))
    known = [name for name, one in zip(names, finite, strict=True) if one]
    parts = [by_side(rows[finite], known)] if known else []
    one, _, other = what.partition(" less ")
    for whose, which in ((one, rows["mean"] == np.inf), (other, rows["mean"] == -np.inf)):
        if some := [name for name, is_ in zip(names, which, strict=True) if is_]:
            parts.append(
                f"no difference is given for {', '.join(some)}, because the NLL of *{whose}* is "
                "infinite (a label has probability 0 in 32 bits)"
            )
    words = SCORES.get(score, score).partition(" (")[0]
    return f"{words}, {what} ({how_many(rows)}): {'; '.join(parts)}."


def told_same(records: Records) -> str:
    """Of which networks stopped and converged are one."""
    table = states(looks(records))
    ends = at_end(table, ["model", "prior"])
    looked_at = table[table.state == STOPPED]
    whole, some = [], []
    for model, rows in looked_at.groupby("model", sort=False):
        priors = list(dict.fromkeys(rows.prior))
        same = [prior for prior in priors if (model, prior) in ends]
        if same == priors:
            whole.append(model)
        some += [_name(model, prior) for prior in same if same != priors]
    names = [f"{listed(whole)}, all priors"] if whole else []
    if not [*names, *some]:
        return "No network's stopped state is its end in every seed."
    return (
        f"{'; '.join([*names, *some])}: the look with the least NLL on the images held out is the "
        "last one, so that stopped and converged are the same network."
    )


def told_comparisons(records: Records) -> str:
    """How many comparisons were made, and how many would differ by chance."""
    return comparisons(differences(looks(records)))
