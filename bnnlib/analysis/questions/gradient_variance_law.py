"""How many ranks make Flipout needless? The law that predicts it, and tables against what was seen.

Each image's gradient has a variance v over weight draws, and two images that share one draw have a
covariance c. A step averages over B images on R ranks, B/R images a draw, so its noise is

    V(R, B) = v/B + c (1/R - 1/B)

(Kingma, Salimans and Welling 2015, section 2.2, for R = 1: the second part does not fall with the
batch). Flipout gives each image signs of its own (Wen et al. 2018), so that c is 0 for what the
noise moves in the first order: V is v/B whatever R, and the difference of the two is c (1/R - 1/B).
One stream of noise for all ranks is one rank's draw: R = 1 for reparameterization. Under Flipout it
gives images at the same place of their batches the same signs, too: V = v/B + c (R - 1)/B.

So two measurements on one rank, at a batch of B0, predict every other row: v = B0 V_Flipout, and
c = (V_plain - V_Flipout) / (1 - 1/B0). :func:`against_law` sets them beside what was measured.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from bnnlib.metrics import Interval, difference

PLACE = ["network", "bayesian_layers", "state"]
CASE = [*PLACE, "estimator", "noise_streams", "global_batch", "ranks"]
ESTIMATORS = ("reparameterization", "local", "flipout")
STATES = ("initial", "half-way", "end", "converged")
# The batch that the law's two numbers are taken at.
BASE = 64
NORMAL = 1.959964  # of a 95 % interval
# Within so much of Flipout's the noise counts as Flipout's.
NEAR = 0.05


def weights_of_law(
    estimator: str, noise_streams: str, global_batch: int, ranks: int, base: int = BASE
) -> tuple[float, float]:
    """How much of Flipout's and of reparameterization's noise on one rank the law predicts.

    Args:
        estimator: one of :data:`ESTIMATORS`; local's noise is predicted from its own in place of
            Flipout's.
        noise_streams: ``own`` or ``one``.
        global_batch: images a step, B.
        ranks: R.
        base: B0, the batch of the two numbers.

    Returns:
        The factors a and b of a V_Flipout(1, B0) + b V_plain(1, B0).
    """
    shares = {
        ("reparameterization", "own"): 1 / ranks - 1 / global_batch,
        ("reparameterization", "one"): 1 - 1 / global_batch,
        ("flipout", "own"): 0.0,
        ("flipout", "one"): (ranks - 1) / global_batch,
        ("local", "own"): 0.0,
    }
    of_covariance = shares[estimator, noise_streams] / (1 - 1 / base)
    return base / global_batch - of_covariance, of_covariance


def against_law(variances: pd.DataFrame, part: str = "all") -> pd.DataFrame:
    """What the law predicts from one rank and 64 images, what was measured, and the difference.

    Args:
        variances: a row a case and part, of ``figures/gradient_variance/variances.csv``.
        part: of the gradient.

    Returns:
        A row a case: `noise`, `predicted`, and `ratio` of the measured to the predicted, each with
        its standard error (``…_error``), and `low` and `high`, the 95 % interval of the ratio. The
        errors of the two are taken as independent. `given` marks the rows that the law starts from.
        A place without these rows has none.
    """
    rows = variances[variances.part == part]
    made = []
    for _, at in rows.groupby(PLACE, sort=False):
        start = {
            row.estimator: row
            for row in at.itertuples()
            if (row.noise_streams, row.global_batch, row.ranks) == ("own", BASE, 1)
        }
        if not {"flipout", "reparameterization"} <= set(start):
            continue
        for row in at.itertuples():
            if row.estimator not in start:
                continue
            a, b = weights_of_law(row.estimator, row.noise_streams, row.global_batch, row.ranks)
            first = start["local" if row.estimator == "local" else "flipout"]
            second = start["reparameterization"]
            predicted = a * first.noise + b * second.noise
            error = math.hypot(a * first.noise_error, b * second.noise_error)
            given = row.Index in {one.Index for one in start.values()}
            ratio = row.noise / predicted
            of_ratio = ratio * math.hypot(row.noise_error / row.noise, error / predicted)
            made.append(
                {name: getattr(row, name) for name in (*CASE, "noise", "noise_error", "image")}
                | {"image_error": row.image_error}
                | {"predicted": predicted, "predicted_error": error, "ratio": ratio}
                | {"low": ratio - NORMAL * of_ratio, "high": ratio + NORMAL * of_ratio}
                | {"given": given}
            )
    return pd.DataFrame(made)


def needless(law: pd.DataFrame) -> pd.DataFrame:
    """From how many ranks on reparameterization is as good as Flipout, at a fixed global batch.

    Args:
        law: of :func:`against_law`.

    Returns:
        A row a place and global batch: `plain` and `flipout`, the noise on one rank, and `image`,
        what the images add; `ranks`, at which the noise is 5 % above Flipout's by the law, and
        `ranks_in_all`, at which noise and images together are, each with its 95 % interval
        (``…_low``, ``…_high``; 1 where one rank is near enough); and `measured`, the least measured
        number of ranks whose noise is not more than 5 % above Flipout's, NaN where none is.
    """
    made = []
    for place, at in law.groupby([*PLACE, "global_batch"], sort=False):
        own = at[at.noise_streams == "own"].set_index(["estimator", "ranks"])
        keys = [("reparameterization", 1), ("flipout", 1)]
        if not all(key in own.index for key in keys):
            continue
        plain, flipout = (own.loc[key] for key in keys)
        batch = place[-1]
        row = dict(zip([*PLACE, "global_batch"], place, strict=True))
        row |= {"plain": plain.noise, "flipout": flipout.noise, "image": flipout.image}
        apart = Interval(
            plain.noise - flipout.noise,
            *difference(_interval(plain.noise, plain.noise_error),
                        _interval(flipout.noise, flipout.noise_error))[1:],
        )  # fmt: skip
        for name, base in (("ranks", 0.0), ("ranks_in_all", flipout.image)):
            ends = [
                _ranks(excess / (1 - 1 / batch) / (NEAR * (flipout.noise + base)), batch)
                for excess in apart
            ]
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
        by_ranks = own.loc["reparameterization"].noise.sort_index()
        near = by_ranks[by_ranks <= (1 + NEAR) * flipout.noise]
        row["measured"] = float(near.index[0]) if len(near) else math.nan
        made.append(row)
    return pd.DataFrame(made)


def _interval(value: float, error: float) -> Interval:
    return Interval(value, value - NORMAL * error, value + NORMAL * error)


def _ranks(covariance: float, batch: int) -> float:
    """The R with covariance (1/R - 1/batch) = 1; 1 where even one rank is within it."""
    return max(1.0, 1 / (1 / covariance + 1 / batch)) if covariance > 0 else 1.0


def per_rank(variances: pd.DataFrame, images: int = 64, part: str = "all") -> pd.DataFrame:
    """Reparameterization's noise over Flipout's where every rank keeps its batch of `images`.

    Returns:
        A row a place and number of ranks: `ratio` with `low` and `high`, its 95 % interval, and
        `predicted`, the ratio on one rank, with `predicted_low` and `predicted_high`.
    """
    rows = variances[(variances.part == part) & (variances.noise_streams == "own")]
    rows = rows[rows.global_batch == images * rows.ranks]
    made = []
    for place, at in rows.groupby(PLACE, sort=False):
        by_case = at.set_index(["estimator", "ranks"])
        ratios = {}
        for ranks in sorted(at.ranks.unique()):
            keys = [("reparameterization", ranks), ("flipout", ranks)]
            if all(key in by_case.index for key in keys):
                ratios[ranks] = ratio_of(*(by_case.loc[key] for key in keys))
        if 1 not in ratios or len(ratios) < 2:
            continue
        for ranks, ratio in ratios.items():
            row = dict(zip(PLACE, place, strict=True)) | {"ranks": ranks}
            row |= dict(zip(("ratio", "low", "high"), ratio, strict=True))
            names = ("predicted", "predicted_low", "predicted_high")
            made.append(row | dict(zip(names, ratios[1], strict=True)))
    return pd.DataFrame(made)


def ratio_of(over: pd.Series, under: pd.Series) -> Interval:
    """The ratio of two measured noises; the interval is of its logarithm, so that it stays > 0."""
    ratio = over.noise / under.noise
    spread = math.hypot(over.noise_error / over.noise, under.noise_error / under.noise)
    return Interval(ratio, *(ratio * math.exp(end * NORMAL * spread) for end in (-1, 1)))


def parts(variances: pd.DataFrame) -> pd.DataFrame:
    """Each part of the gradient on one rank: noise of each estimator, and the images' share.

    Returns:
        A row a place, global batch and part: `entries`, `reparameterization`, `flipout` and
        `local`, their noise, and `image`, of Flipout's rows; NaN where one was not measured.
    """
    rows = variances[(variances.noise_streams == "own") & (variances.ranks == 1)]
    index = [*PLACE, "global_batch", "part"]
    wide = rows.pivot_table(index=index, columns="estimator", values="noise", sort=False)
    flipout = rows[rows.estimator == "flipout"].set_index(index)
    wide["image"], wide["entries"] = flipout.image, flipout.entries
    return wide.reindex(columns=["entries", *ESTIMATORS, "image"]).reset_index()


def step_times(bench: pd.DataFrame) -> pd.DataFrame:
    """What Flipout's second product costs, of ``figures/bench/bench.csv``, one thread.

    Returns:
        A row a network: `milliseconds` of a Flipout step, and `ratio`, to what `against` names: the
        reparameterized network's step, or where that was not measured the twin's, with `low` and
        `high`, the ratios of the least and the largest of the repeats.
    """
    rows = bench[bench.threads == 1].set_index(["model", "baseline"])
    made = []
    for model, baseline in rows.index:
        if baseline != "bnnlib" or not model.endswith("_flip"):
            continue
        other, against = (model.replace("_flip", "_nonflip"), "bnnlib"), "reparameterization"
        if other not in rows.index:
            other, against = (model, "twin"), "the deterministic twin"
        ours, its = rows.loc[model, "bnnlib"], rows.loc[other]
        made.append(
            {"model": model, "against": against, "milliseconds": ours.ms_per_step}
            | {"ratio": ours.ms_per_step / its.ms_per_step}
            | {"low": ours.ms_min / its.ms_max, "high": ours.ms_max / its.ms_min}
        )
    return pd.DataFrame(made)


def agreement(law: pd.DataFrame) -> dict[str, float]:
    """How well the law holds over all rows that it does not start from.

    Returns:
        `rows`, `inside`, those whose interval of measured over predicted holds 1, `median`, `low`
        and `high`, the ratios' median and their 5 and 95 % quantiles.
    """
    rows = law[~law.given.astype(bool)]
    inside = (rows.low <= 1) & (rows.high >= 1)
    low, median, high = np.quantile(rows.ratio, [0.05, 0.5, 0.95])
    return {
        "rows": len(rows),
        "inside": int(inside.sum()),
        "median": float(median),
        "low": float(low),
        "high": float(high),
    }
