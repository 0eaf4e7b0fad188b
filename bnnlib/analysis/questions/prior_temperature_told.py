"""Sentences on prior and temperature: of :mod:`bnnlib.analysis.questions.prior_temperature`.

Every number carries its 95 % interval over seeds, where there are three or more.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bnnlib.analysis.questions import convergence
from bnnlib.analysis.questions.convergence import CONVERGED, LONG, STOPPED
from bnnlib.analysis.questions.prior_temperature import (
    COLD,
    KNOBS,
    SCORES,
    STATES,
    Records,
    ours,
    runs,
    said,
)
from bnnlib.analysis.questions.seeds import by_side, how_many, once
from bnnlib.analysis.words import (
    between,
    counted,
    percent,
    side,
    signed_between,
    span,
)
from bnnlib.names import in_order


def seeds(records: Records) -> str:
    """Which settings have how many seeds, in which training, and what they cost."""
    table = runs(records)
    if table.empty:
        return "No run has finished yet."
    table = table.assign(group=table.run.str.partition("/")[0])
    parts = []
    for knob, words in {"": "all defaults", **KNOBS}.items():
        for (model, group), rows in table[table.knob == knob].groupby(["model", "group"]):
            each = [
                f"{setting:g} ({counted(one.seed.nunique(), 'seed')})"
                if knob
                else counted(one.seed.nunique(), "seed")
                for setting, one in rows.groupby("setting")
            ]
            state = convergence.AT_THE_END[group]
            parts.append(f"- {words}, {model}, {state}: {', '.join(each)}")
    hours = table.seconds.sum() / 3600
    return "\n".join([*parts, f"\nAll {len(table)} runs: {hours:.2f} core-hours."])


def effect(compared: pd.DataFrame, state: str = CONVERGED) -> str:
    """Where a cold-posterior effect is shown: lower NLL and higher accuracy than the defaults'.

    Args:
        compared: of :func:`bnnlib.analysis.questions.prior_temperature.differences`.
        state: of the networks.
    """
    table = compared[compared.setting < 1]
    table = table[(table.what == "less defaults") & (table.state == state)]
    parts = []
    for knob in ("kl_weight", COLD):
        rows = table[table.knob == knob]
        for model, of_model in rows.groupby("model", sort=False):
            there: list[str] = []
            not_there: list[str] = []
            for setting, of_setting in of_model.groupby("setting"):
                by_score = of_setting.set_index("score")
                if not {"nll", "accuracy"} <= set(by_score.index):
                    continue
                nll, accuracy = by_score.loc["nll"], by_score.loc["accuracy"]
                shown = (
                    f"{setting:g} (NLL {signed_between(nll['mean'], nll.low, nll.high)}, accuracy "
                    f"{signed_between(accuracy['mean'], accuracy.low, accuracy.high)}, "
                    f"{counted(int(nll.seeds), 'seed')})"
                )
                effect = side(nll.low, nll.high) < 0 and side(accuracy.low, accuracy.high) > 0
                (there if effect else not_there).append(shown)
            for words, some in (("shown at", there), ("not shown at", not_there)):
                if some:
                    parts.append(f"{model}, {KNOBS[knob]}: {words} {', '.join(some)}")
    return (
        f"*{state}* — " + "; ".join(parts) + "." if parts else f"*{state}*: no run is cooled yet."
    )


def least(table: pd.DataFrame, score: str = "nll", state: str = CONVERGED) -> str:
    """A score at every KL weight, each with its interval; which is least is not compared.

    Args:
        table: of :func:`bnnlib.analysis.questions.prior_temperature.settings`.
        score: as there.
        state: of the networks.
    """
    table = table[(table.knob == "kl_weight") & (table.score == score) & (table.state == state)]
    parts = []
    for model, rows in table.groupby("model", sort=False):
        if len(rows) < 2:  # nothing to choose among
            continue
        each = [
            f"{said('kl_weight', row.setting)} {between(row['mean'], row.low, row.high)}"
            for _, row in rows.sort_values("setting").iterrows()
        ]
        parts.append(f"{model} at {', '.join(each)} ({how_many(rows)})")
    words = f"{_words(score)}, {state}"
    if not parts:
        return f"{words}: no run has another KL weight than 1."
    return f"{words}, by KL weight: {'; '.join(parts)}. Which of them is least is not compared."


def sure(table: pd.DataFrame, state: str = CONVERGED, knob: str = "kl_weight") -> str:
    """The fitted temperature and debiased ECE in each setting of a knob.

    Args:
        table: of :func:`bnnlib.analysis.questions.prior_temperature.settings`.
        state: of the networks.
        knob: as there.
    """
    table = table[(table.knob == knob) & (table.state == state)]
    parts = []
    for model, rows in table.groupby("model", sort=False):
        wide = {score: of.set_index("setting") for score, of in rows.groupby("score")}
        if not {"temperature", "ece_debiased"} <= set(wide):
            continue
        kinds: dict[str, list[str]] = {}
        for setting, row in wide["temperature"].sort_index(ascending=False).iterrows():
            where = side(row.low - 1, row.high - 1, 2)
            words = {-1: "less sure than right", 1: "too sure", 0: "not told from calibrated"}
            kind = words[where] if row.seeds > 2 else "too few seeds"
            ece = wide["ece_debiased"].loc[setting]
            kinds.setdefault(kind, []).append(
                f"{said(knob, setting)} (T {between(row['mean'], row.low, row.high, 2)}, debiased "
                f"ECE {between(ece['mean'], ece.low, ece.high)})"
            )
        of_kinds = [f"{kind} at {', '.join(some)}" for kind, some in kinds.items()]
        parts.append(f"{model}, by {KNOBS[knob]}: {'; '.join(of_kinds)}")
    return (
        f"*{state}* — " + ". ".join(parts) + "." if parts else f"*{state}*: nothing is known yet."
    )


def difference(
    compared: pd.DataFrame,
    knob: str,
    score: str,
    state: str = CONVERGED,
    what: str = "less defaults",
) -> str:
    """One score's difference in each setting of a knob, by what is shown of it.

    Args:
        compared: of :func:`bnnlib.analysis.questions.prior_temperature.differences`.
        knob: as there.
        score: as there.
        state: as there; of two that `what` compares, the first.
        what: as there.
    """
    rows = once(compared[(compared.knob == knob) & (compared.score == score)])
    rows = rows[rows.state == state]
    rows = rows[rows.what == what]
    title = f"{_words(score)}, {KNOBS[knob]}, {what}"
    title += "" if state in what else f", {state}"
    if rows.empty:
        return f"{title}: nothing to compare yet."
    names = [f"{row.model} at {row.setting:g}" for row in rows.itertuples()]
    return f"{title} ({how_many(rows)}): {by_side(rows, names)}."


def differences(
    compared: pd.DataFrame,
    knob: str,
    of_scores: Sequence[str],
    states: Sequence[str] = STATES,
    what: str = "less defaults",
) -> str:
    """The sentences of :func:`difference` on what there is to compare, a paragraph each."""
    rows = compared[(compared.knob == knob) & (compared.what == what)]
    if len(rows) and rows.repeats.all():
        return f"{KNOBS[knob]}, {what}: no network stopped early, so that the two are one."
    rows = once(rows)
    there = set(zip(rows.score, rows.state, strict=True))
    said = [
        difference(compared, knob, score, state, what)
        for score in of_scores
        for state in states
        if (score, state) in there
    ]
    return "\n\n".join(said) or f"{KNOBS[knob]}, {what}: nothing to compare yet."


def stopped(found: pd.DataFrame) -> str:
    """At which epoch the images held out stop each KL weight, of the table of all scores."""
    table = found[found.knob == "kl_weight"]
    table = table[(table.state == STOPPED) & (table.score == "epoch")]
    parts = []
    for (model, setting), rows in table.groupby(["model", "setting"], sort=False):
        least, most = f"{rows.value.min():.0f}", f"{rows.value.max():.0f}"
        parts.append(f"{model} at {setting:g} {span(least, most)} ({counted(len(rows), 'seed')})")
    return f"Stopped after epochs: {'; '.join(parts)}." if parts else "No run was looked at yet."


def trained(records: Records) -> str:
    """How many of the long trainings' posteriors stand still by the rule of 2 %."""
    table = runs([one for one in ours(records) if one["run"].startswith(f"{LONG}/")])
    if table.empty:
        return "No long training has finished."
    still = int(table.converged.eq(True).sum())
    change = table.kl_change.dropna().astype(float).abs()
    return (
        f"By the rule of 2 % {still} of {len(table)} long trainings stand still (over the last "
        f"tenth KL changed by {percent(change.min(), 1)} to {percent(change.max(), 1)})."
    )


def same(found: pd.DataFrame) -> str:
    """Of which settings stopped and converged are one network, of the table of all scores."""
    ends = convergence.at_end(found, ["knob", "setting", "model"])
    parts = []
    for knob, words in KNOBS.items():
        for model in in_order({one[2] for one in ends if one[0] == knob}):
            settings = sorted(one[1] for one in ends if one[::2] == (knob, model))
            parts.append(f"{model}, {words} {', '.join(said(knob, one) for one in settings)}")
    if not parts:
        return "No setting's stopped state is its end in every seed."
    return (
        f"{'; '.join(parts)}: the look with the least NLL on the images held out is the last one, "
        "so that stopped and converged are the same network."
    )


def _words(score: str) -> str:
    return SCORES.get(score, score).partition(" (")[0]
