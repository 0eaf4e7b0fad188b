"""What the tables of pruning say, in sentences: each with its interval over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from bnnlib.analysis.questions.pruning import (
    BOTH,
    BY,
    CLAIMED_LOSS,
    CLAIMED_SHARE,
    CONV,
    FLIP,
    NETWORKS,
    SCORES,
    STATES,
    TWIN,
    Records,
    matching,
)
from bnnlib.analysis.questions.seeds import interval
from bnnlib.analysis.words import between, counted, number, side, signed_between, span

_WORDS = {"accuracy": "accuracy", "of_a_draw": "accuracy of a single draw", **SCORES}
# What the scores of `gains` count, by network.
_KINDS = {FLIP: {"units": "units", "inputs": "pixels"}, CONV: {"units": "filters"}}
# The columns of ``units.csv`` in words, and digits.
_OF_UNITS = (
    ("goes_at", "the share at which its last incoming weight goes", 3),
    ("greatest", "the greatest signal to noise of its weights", 2),
    ("stddev", "their median deviation", 3),
    ("bias", "its bias", 1),
    ("outgoing", "the largest size of a weight that reads it", 2),
)
LITTLE = 0.005  # half a point of accuracy
NOTHING = "Nothing has been measured of this yet."


def told_runs(records: Records, pruned: pd.DataFrame) -> str:
    """How many networks were pruned, of how many seeds, and in how many cases."""
    if pruned.empty:
        return NOTHING
    of_runs = {one["run"]: one["parameters"] for one in records}
    names: dict[str, set[int]] = {}
    for run in dict.fromkeys(pruned.run):
        both = of_runs[run]["bayesian_layers"] == "all"
        name = f"{of_runs[run]['model']}{', both layers' if both else ''}"
        words = f"{name} ({STATES[run.partition('/')[0]]})"
        names.setdefault(words, set()).add(of_runs[run]["seed"])
    parts = [f"{name}: {counted(len(seeds), 'seed')}" for name, seeds in names.items()]
    seconds = pruned.cpu_seconds.sum()
    return (
        f"{'; '.join(parts)}. {counted(len(pruned), 'case')}, each on the 10,000 test images; "
        f"{number(seconds / 3600, 2)} core-hours of evaluation."
    )


def told_at(
    differences: pd.DataFrame,
    what: str,
    score: str,
    shares: tuple[float, ...],
    network: str = FLIP,
    by: str = "signal_to_noise",
) -> str:
    """One difference at some shares, in both states."""
    rows = differences[matching(differences, what=what, score=score, network=network, by=by)]
    lines = []
    for state in STATES.values():
        here = rows[(rows.state == state) & rows.share.isin(shares)]
        if here.empty:
            continue
        said = [f"{_share(row.share)} {_signed(row)}" for row in here.itertuples()]
        seeds = span(str(here.seeds.min()), str(here.seeds.max()))
        lines.append(f"- **{state}** ({seeds} seeds): {'; '.join(said)}")
    words = _WORDS[score]
    told = what.replace("signal_to_noise", BY["signal_to_noise"])
    told = told.replace("magnitude", BY["magnitude"]).replace("kl ", "KL ")
    ways = "" if "signal" in what or what.startswith("trap") else f", by {BY[by]}"
    head = f"{words}, {told}{ways} ({network}):"
    return head + "\n\n" + "\n".join(lines) if lines else f"{head} {NOTHING}"


def _share(share: float) -> str:
    """A share with as many digits as it has: ``80 %``, ``99.5 %``."""
    return f"{100 * share:g} %"


def _signed(row: object) -> str:
    return signed_between(*(getattr(row, name) for name in ("mean", "low", "high")))


def told_shares(differences: pd.DataFrame) -> str:
    """How much can go, by each score, before half a point of accuracy is shown to be lost."""
    rows = differences[matching(differences, what="pruned less whole", score="accuracy")]
    lines = []
    for network in NETWORKS:
        for state in STATES.values():
            said = []
            for by, words in BY.items():
                here = rows[matching(rows, network=network, state=state, by=by)].sort_values(
                    "share"
                )
                if here.empty or here.low.isna().any():
                    continue
                fine = (here.low >= -LITTLE).cumprod().astype(bool)
                most = here[fine].share.max() if fine.any() else 0.0
                said.append(f"{words} {_share(most)}")
            if said:
                lines.append(f"- **{network}, {state}**: {', '.join(said)}")
    if not lines:
        return NOTHING
    return (
        "The largest measured share up to which the whole 95 % interval of the loss stays within "
        "half a point of accuracy:\n\n" + "\n".join(lines)
    )


def told_explained(differences: pd.DataFrame) -> str:
    """What exact zeros and the trap change at the claimed share, beside the claimed loss."""
    lines = []
    for state in STATES.values():
        for score in ("accuracy", "of_a_draw"):
            found = {}
            for what in ("pruned less whole", "trap less whole", "trap less zero"):
                where = {"what": what, "state": state, "score": score, "network": FLIP}
                rows = differences[matching(differences, **where, by="signal_to_noise")]
                rows = rows[rows.share == CLAIMED_SHARE]
                if len(rows):
                    found[what] = rows.iloc[0]
            if len(found) < 3:
                continue
            plain, trap, more = (_points(one) for one in found.values())
            extra = found["trap less zero"]
            shown = side(extra.low, extra.high)
            part = "" if shown < 0 else "; no loss that the trap adds is shown"
            lines.append(
                f"- **{state}, {_WORDS[score]}**: exactly 0 {plain}, the trap {trap} points "
                f"against the whole network; the trap less exactly 0: {more}{part}"
            )
    if not lines:
        return NOTHING
    return (
        f"With {_share(CLAIMED_SHARE)} removed by signal to noise ({FLIP}); the claim is a loss "
        f"of {number(100 * CLAIMED_LOSS, 0)} points:\n\n" + "\n".join(lines)
    )


def _points(row: pd.Series) -> str:
    """A difference of accuracy in points, with its sign."""
    return signed_between(100 * row["mean"], 100 * row["low"], 100 * row["high"], 2)


def told_gains(table: pd.DataFrame) -> str:
    """The file, the units and pixels, and the time at some shares."""
    lines = []
    for (network, state), here in table.groupby(["network", "state"], sort=False):
        whole = {score: rows["mean"].max() for score, rows in here.groupby("score")}
        said = []
        for share in (0.8, 0.9, 0.95):
            at = here[here.share == share].set_index("score")
            kinds = _KINDS[str(network)]
            left = _left(at, whole, kinds) + _time(at, " and ".join(kinds.values()))
            if left:
                said.append(f"    - {_share(share)} removed: {' '.join(left)}")
        if said:
            lines += [f"- **{network}, {state}**", *said]
    return "\n".join(lines) if lines else NOTHING


def _left(at: pd.DataFrame, whole: dict[str, float], kinds: dict[str, str]) -> list[str]:
    """The file and the units that are left at a share, a sentence or none."""
    units = [
        f"{_between(at.loc[score], 1, 1)} of {number(whole[score], 0)} {kind}"
        for score, kind in kinds.items()
        if score in at.index
    ]
    parts = [f"{' and '.join(units)} are left"] if units else []
    if "bytes" in at.index:
        size = _between(at.loc["bytes"], 1000, 1)
        parts.insert(0, f"{size} kB instead of {number(whole['bytes'] / 1000, 1)}")
    return [f"{'; '.join(parts)}."] if parts else []


def _time(at: pd.DataFrame, kinds: str) -> list[str]:
    """The time of a prediction at a share, a sentence or none."""
    if not {"time_whole", "time_shrunk"} <= set(at.index):
        return []
    ratio, low, high = (number(at.loc["time_shrunk", one], 2) for one in ("mean", "low", "high"))
    placed, *ends = (number(at.loc["time_whole", one], 2) for one in ("mean", "low", "high"))
    return [
        f"With the unneeded {kinds} taken out, prediction takes {ratio} (quartiles {low} to "
        f"{high}, one seed) of the unpruned CPU time; with zeros left in place {placed} "
        f"({' to '.join(ends)})."
    ]


def _between(row: pd.Series, unit: float, digits: int) -> str:
    return between(row["mean"] / unit, row["low"] / unit, row["high"] / unit, digits)


def told_units(units: pd.DataFrame, records: Records) -> str:
    """How the units of `BNN_FC_flip` that go by the claimed share differ from those that stay.

    Args:
        units: of ``units.csv`` (:mod:`jobs.local.prune`).
        records: compact records of the runs that were pruned.
    """
    if units.empty:
        return NOTHING
    seeds = {one["run"]: one["parameters"]["seed"] for one in records}
    table = units.assign(
        seed=units.run.map(seeds),
        state=units.run.str.partition("/")[0].map(STATES),
        gone=units.goes_at <= CLAIMED_SHARE,
    )
    lines = []
    for state, here in table.groupby("state", sort=False):
        of_seed = here.groupby("seed").gone.sum()
        many = _of_seeds(of_seed, 1)
        each = span(str(of_seed.min()), str(of_seed.max()))
        lines.append(f"- **{state}**: {many} units of {here.unit.nunique()} ({each} a seed)")
        if of_seed.min() > 0:
            middles = here.groupby(["gone", "seed"]).median(numeric_only=True)
            lines += [
                f"    - {words}: {_of_seeds(middles.loc[True, name], digits)} where the unit goes, "
                f"{_of_seeds(middles.loc[False, name], digits)} where it stays"
                for name, words, digits in _OF_UNITS
            ]
    return (
        f"Units whose last incoming weight goes by {_share(CLAIMED_SHARE)}, by signal to noise "
        f"({FLIP}), and the median unit's values:\n\n" + "\n".join(lines)
    )


def _of_seeds(values: pd.Series, digits: int) -> str:
    return between(*interval(list(values)), digits)


def told_twin(curves: pd.DataFrame) -> str:
    """The accuracy of the Bayesian network and of its twin, each pruned by what it has."""
    lines = []
    for state in STATES.values():
        said = []
        for share in (0.0, 0.8, 0.9, 0.95):
            shown = []
            for network, by in (
                (FLIP, "signal_to_noise"),
                (FLIP, "magnitude"),
                (TWIN, "magnitude"),
            ):
                where = {"network": network, "by": by, "state": state, "score": "accuracy"}
                rows = curves[matching(curves, **where, scope="global", removed="zero")]
                rows = rows[rows.share == share]
                if len(rows):
                    row = rows.iloc[0]
                    shown.append(f"{network} by {BY[by]} {between(row['mean'], row.low, row.high)}")
            if len(shown) == 3:
                said.append(f"{_share(share)} removed: {', '.join(shown)}")
        if said:
            lines.append(f"- **{state}**: {'; '.join(said)}")
    return "\n".join(lines) if lines else "The deterministic twin has not been pruned yet."


class Prediction(NamedTuple):
    """One sentence of what was expected, and the bounds that say whether it holds.

    Attributes:
        words: as a reader finds it.
        what: the difference of :func:`bnnlib.analysis.questions.pruning.differences`.
        score: of which.
        shares: at all of which it was expected.
        least: the difference's lower bound.
        most: its upper bound; `of_whole` makes both parts of the whole network's own score.
        by: the score that chose the weights.
        network: of which.
        states: in which it was expected.
        of_whole: see `most`.
    """

    words: str
    what: str
    score: str
    shares: Sequence[float]
    least: float = -math.inf
    most: float = math.inf
    by: str = "signal_to_noise"
    network: str = FLIP
    states: Sequence[str] = tuple(STATES.values())
    of_whole: bool = False


_UP_TO_90, _FROM_90 = (0.3, 0.6, 0.8, 0.9), (0.9, 0.95, 0.98, 0.99, 0.995)
_TEN, _END = (("ten epochs",), ("converged",))
# What the notebook expects, in its order; written down before anything was measured.
PREDICTIONS = (
    Prediction("1. by signal to noise, up to 90 % go for less than half a point of accuracy",
               "pruned less whole", "accuracy", _UP_TO_90, least=-LITTLE),
    Prediction("1. at 99 % two points or more go", "pruned less whole", "accuracy", (0.99,),
               most=-0.02),
    Prediction("2. KL is within a point of signal to noise up to 90 %",
               "kl less signal_to_noise", "accuracy", _UP_TO_90, -0.01, 0.01, by="kl"),
    Prediction("2. and so is the size of the mean", "magnitude less signal_to_noise", "accuracy",
               _UP_TO_90, -0.01, 0.01, by="magnitude"),
    Prediction("2. at random, 60 % cost ten points or more", "pruned less whole", "accuracy",
               (0.6,), most=-0.1, by="random"),
    Prediction("3. with 90 % gone the NLL is a tenth lower", "pruned less whole", "nll", (0.9,),
               most=-0.1, states=_END, of_whole=True),
    Prediction("3. and the calibration error half", "pruned less whole", "ece_debiased", (0.9,),
               most=-0.5, states=_END, of_whole=True),
    Prediction("4. the near AUROC falls from the first share on", "pruned less whole",
               "auroc_near", _UP_TO_90, most=0.0),
    Prediction("5. the trap costs less than half a point up to 80 %", "trap less zero", "accuracy",
               (0.3, 0.6, 0.8), least=-LITTLE, states=_END),
    Prediction("5. and accuracy from 90 % on", "trap less zero", "accuracy", _FROM_90, most=0.0,
               states=_END),
    Prediction("5. the trap costs two points or more at 80 %", "trap less zero", "accuracy",
               (0.8,), most=-0.02, states=_TEN),
    Prediction("6. by layer is worse than globally from 95 % on", "by layer less globally",
               "accuracy", _FROM_90[1:], most=0.0, network=BOTH),
)  # fmt: skip


def told_predictions(differences: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """What was expected beside whether it held: by whole 95 % intervals, at all its shares.

    Returns:
        Columns ``expected``, and one a state: `held`, `did not hold` (an interval lies beyond the
        bound), `not told` (an interval holds the bound), `not measured`, or nothing.
    """
    made = []
    for one in PREDICTIONS:
        where = {"what": one.what, "score": one.score, "network": one.network, "by": one.by}
        rows = differences[matching(differences, **where) & differences.share.isin(one.shares)]
        row = {"expected": one.words}
        for state in STATES.values():
            unit = 1.0
            if one.of_whole:
                whole = curves[
                    matching(curves, network=one.network, state=state, score=one.score, by=one.by)
                ]
                unit = float(whole[whole.share == 0]["mean"].max())
            here = rows[rows.state == state]
            row[state] = _verdict(here, one.least * unit, one.most * unit)
            if state not in one.states:
                row[state] = ""
        made.append(row)
    return pd.DataFrame(made)


def _verdict(rows: pd.DataFrame, least: float, most: float) -> str:
    if rows.empty or rows.low.isna().any():
        return "not measured"
    if ((rows.high < least) | (rows.low > most)).any():
        return "did not hold"
    held = ((rows.low >= least) & (rows.high <= most)).all()
    return "held" if held else "not told"


def told_comparisons(differences: pd.DataFrame) -> str:
    """How many comparisons were made, and how many would exclude 0 by chance."""
    known = differences.dropna(subset="low")
    apart = sum(side(row.low, row.high) != 0 for row in known.itertuples())
    return (
        f"These are {counted(len(known), 'comparison')}, many of them of one another's networks, "
        f"of which {apart} exclude 0; of as many true zeros {number(0.05 * len(known), 0)} would."
    )
