"""How many ranks make Flipout needless? The law that predicts it, and tables against what was seen.

Each image's gradient has a variance v over weight draws, and two images that share one draw have a
covariance c. A step averages over B images on R ranks, B/R images a draw, so its noise is

    V(R, B) = v/B + c (1/R - 1/B)

(Kingma, Salimans and Welling 2015, section 2.2, for R = 1: the second part does not fall with the
batch). Flipout gives each image signs of its own (Wen et al. 2018), so that c is 0 for what the
noise moves in the first order: V is v/B whatever R, and the difference of the two is c (1/R - 1/B).
One stream of noise for all ranks is one rank's draw: R = 1 for reparameterization. Under Flipout it
gives images at the same place of their batches the same signs, too: V = v/B + c (R - 1)/B.

So two measurements on one rank predict every number of ranks at their batch B: v = B V_Flipout, and
c = (V_plain - V_Flipout) / (1 - 1/B). :func:`against_law` sets them beside what was measured.

A few hard images are most of a trained network's noise, and batches differ much. So noises are
compared on the same batches, and an interval is of the ratio of their means over batches
(Cochran 1977, section 2.11), not of each mean by itself.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import special

from bnnlib.metrics import Interval

PLACE = ["network", "bayesian_layers", "state"]
CASE = [*PLACE, "estimator", "noise_streams", "global_batch", "ranks"]
ESTIMATORS = ("reparameterization", "local", "flipout")
STATES = ("initial", "half-way", "end", "converged")
NORMAL = 1.959964  # of a 95 % interval
# Within so much of Flipout's the noise counts as Flipout's.
NEAR = 0.05


def weights_of_law(
    estimator: str, noise_streams: str, global_batch: int, ranks: int
) -> tuple[float, float]:
    """How much of Flipout's and of reparameterization's noise on one rank the law predicts.

    Args:
        estimator: one of :data:`ESTIMATORS`; local's noise is predicted from its own in place of
            Flipout's.
        noise_streams: ``own`` or ``one``.
        global_batch: images a step, B.
        ranks: R.

    Returns:
        The factors a and b of a V_Flipout(1) + b V_plain(1); their sum is 1.
    """
    shares = {
        ("reparameterization", "own"): 1 / ranks - 1 / global_batch,
        ("reparameterization", "one"): 1 - 1 / global_batch,
        ("flipout", "own"): 0.0,
        ("flipout", "one"): (ranks - 1) / global_batch,
        ("local", "own"): 0.0,
    }
    of_covariance = shares[estimator, noise_streams] / (1 - 1 / global_batch)
    return 1 - of_covariance, of_covariance


def against_law(variances: pd.DataFrame) -> pd.DataFrame:
    """What the law predicts from one rank, what was measured, and their ratio.

    Args:
        variances: of ``figures/gradient_variance/variances.csv``, a row a case and part.

    Returns:
        A row a case of a place and global batch where both estimators were measured on one rank:
        `predicted`; `ratio`, of the measured to the predicted on the same batches of images, with
        `low` and `high`, its 95 % interval; `noise`, the ratio times what is predicted for all
        batches, so that a case of fewer batches can be drawn beside the others; `image`, what the
        images add. `given` marks the rows that the law starts from, whose ratio is 1.
    """
    rows = variances[variances.part == "all"]
    made = []
    for (*_, batch), at in rows.groupby([*PLACE, "global_batch"], sort=False):
        start = at[(at.noise_streams == "own") & (at.ranks == 1)].set_index("estimator")
        if not {"flipout", "reparameterization"} <= set(start.index):
            continue
        noises = {name: of_batches(start.loc[name]) for name in start.index}
        for _, row in at.iterrows():
            first = "local" if row.estimator == "local" else "flipout"
            if first not in noises:
                continue
            a, b = weights_of_law(row.estimator, row.noise_streams, batch, row.ranks)
            predicted = a * noises[first] + b * noises["reparameterization"]
            ratio = ratio_on_the_same_batches(of_batches(row), predicted)
            made.append(
                {name: row[name] for name in (*CASE, "image")}
                | {"noise": ratio.estimate * predicted.mean(), "predicted": predicted.mean()}
                | {"ratio": ratio.estimate, "low": ratio.low, "high": ratio.high}
                | {"given": row.noise_streams == "own" and row.ranks == 1}
            )
    return pd.DataFrame(made)


def of_batches(row: pd.Series) -> np.ndarray:
    """A case's noise on each batch of images."""
    return np.array(str(row.noise_of_batches).split(), np.float64)


def ratio_on_the_same_batches(over: np.ndarray, under: np.ndarray) -> Interval:
    """The ratio of two means over batches of images, with its 95 % interval over batches.

    Args:
        over: the noise on each batch.
        under: likewise, of the same batches; the longer one's last batches are left out.
    """
    count = min(len(over), len(under))
    over, under = over[:count], under[:count]
    ratio = float(over.mean() / under.mean())
    left = over - ratio * under  # its mean is 0
    error = math.sqrt(float(np.square(left).sum()) / (count - 1) / count) / float(under.mean())
    reach = float(special.stdtrit(count - 1, 0.975)) * error
    return Interval(ratio, ratio - reach, ratio + reach)


def needless(variances: pd.DataFrame) -> pd.DataFrame:
    """From how many ranks on reparameterization is as good as Flipout, at a fixed global batch.

    Args:
        variances: as of :func:`against_law`.

    Returns:
        A row a place and global batch: `flipout`, the noise on one rank, and `image`, what the
        images add; `excess`, the ratio of reparameterization's noise on one rank to Flipout's,
        with `excess_low` and `excess_high`; `ranks`, at which the noise is 5 % above Flipout's by
        the law, and `ranks_in_all`, at which noise and images together are, each with its 95 %
        interval (``…_low``, ``…_high``; 1 where one rank is near enough).
    """
    rows = variances[(variances.part == "all") & (variances.noise_streams == "own")]
    rows = rows[rows.ranks == 1]
    made = []
    for (*place, batch), at in rows.groupby([*PLACE, "global_batch"], sort=False):
        by_name = at.set_index("estimator")
        if not {"flipout", "reparameterization"} <= set(by_name.index):
            continue
        flipout = by_name.loc["flipout"]
        excess = ratio_on_the_same_batches(
            of_batches(by_name.loc["reparameterization"]), of_batches(flipout)
        )
        row = dict(zip([*PLACE, "global_batch"], [*place, batch], strict=True))
        row |= {"flipout": flipout.noise, "image": flipout.image}
        row |= dict(zip(("excess", "excess_low", "excess_high"), excess, strict=True))
        images = max(float(flipout.image), 0.0) / flipout.noise
        for name, base in (("ranks", 1.0), ("ranks_in_all", 1.0 + images)):
            ends = [_ranks((end - 1) / (1 - 1 / batch) / (NEAR * base), batch) for end in excess]
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
        made.append(row)
    return pd.DataFrame(made)


def _ranks(covariance: float, batch: int) -> float:
    """The R with covariance (1/R - 1/batch) = 1; 1 where even one rank is within it."""
    return max(1.0, 1 / (1 / covariance + 1 / batch)) if covariance > 0 else 1.0


def across_batches(variances: pd.DataFrame, small: int = 64, large: int = 512) -> pd.DataFrame:
    """The law's two numbers at a large global batch over those at a small one; 1 by the law.

    Returns:
        A row a place: `v` and `c`, the ratios, each with its 95 % interval (``…_low``,
        ``…_high``) by the delta method: the batches are other images.
    """
    rows = variances[(variances.part == "all") & (variances.noise_streams == "own")]
    rows = rows[rows.ranks == 1].set_index(["global_batch", "estimator"])
    made = []
    for place, at in rows.groupby(PLACE, sort=False):
        keys = [(b, e) for b in (large, small) for e in ("flipout", "reparameterization")]
        if not all(key in at.index for key in keys):
            continue
        row = dict(zip(PLACE, place, strict=True))
        numbers: dict[str, list[np.ndarray]] = {"v": [], "c": []}
        for batch in (large, small):
            flipout, plain = (of_batches(at.loc[batch, name]) for name in ESTIMATORS[::-2])
            count = min(len(flipout), len(plain))
            numbers["v"].append(batch * flipout)
            numbers["c"].append((plain[:count] - flipout[:count]) / (1 - 1 / batch))
        for name, (over, under) in numbers.items():
            ratio = over.mean() / under.mean()
            spread = [one.std(ddof=1) / math.sqrt(len(one)) / one.mean() for one in (over, under)]
            reach = NORMAL * abs(ratio) * math.hypot(*spread)
            row |= {name: ratio, f"{name}_low": ratio - reach, f"{name}_high": ratio + reach}
        made.append(row)
    return pd.DataFrame(made)


def one_stream(variances: pd.DataFrame) -> pd.DataFrame:
    """The noise with one stream for all ranks over that with a stream a rank.

    Returns:
        A row a case with one stream: `ratio` with `low` and `high`, its 95 % interval.
    """
    rows = variances[variances.part == "all"].drop_duplicates(CASE).set_index(CASE)
    made = []
    for case, row in rows.iterrows():
        one = dict(zip(CASE, case, strict=True))
        other = tuple((one | {"noise_streams": "own"}).values())
        if one["noise_streams"] == "one" and other in rows.index:
            ratio = ratio_on_the_same_batches(of_batches(row), of_batches(rows.loc[other]))
            made.append(one | dict(zip(("ratio", "low", "high"), ratio, strict=True)))
    return pd.DataFrame(made)


def per_rank(variances: pd.DataFrame, images: int = 64) -> pd.DataFrame:
    """Reparameterization's noise over Flipout's where every rank keeps its batch of `images`.

    Returns:
        A row a place and number of ranks: `ratio` with `low` and `high`, its 95 % interval, and
        `predicted`, the ratio on one rank, with `predicted_low` and `predicted_high`.
    """
    rows = variances[(variances.part == "all") & (variances.noise_streams == "own")]
    rows = rows[rows.global_batch == images * rows.ranks]
    made = []
    for place, at in rows.groupby(PLACE, sort=False):
        by_case = at.set_index(["estimator", "ranks"]).sort_index()
        ratios = {
            ranks: ratio_on_the_same_batches(
                *(of_batches(by_case.loc[name, ranks]) for name in ESTIMATORS[::2])
            )
            for ranks in sorted(at.ranks.unique())
            if all((name, ranks) in by_case.index for name in ESTIMATORS[::2])
        }
        if 1 not in ratios or len(ratios) < 2:
            continue
        for ranks, ratio in ratios.items():
            row = dict(zip(PLACE, place, strict=True)) | {"ranks": ranks}
            row |= dict(zip(("ratio", "low", "high"), ratio, strict=True))
            names = ("predicted", "predicted_low", "predicted_high")
            made.append(row | dict(zip(names, ratios[1], strict=True)))
    return pd.DataFrame(made)


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
