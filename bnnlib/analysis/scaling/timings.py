"""What run records measured: images/s, efficiency, time to an accuracy, the parts of a step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from bnnlib.analysis import runs as run_tables
from bnnlib.errors import RecordError
from bnnlib.names import in_order
from bnnlib.record import profile as step_profile
from bnnlib.record.logs import read_accuracy, read_steps

# What makes two runs the same measurement; and what one of several ranks is held against.
_SAME = ("model", "dataset", "threads_used", "virtual_ranks", "compression")


def timings(path: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The finished runs below a folder whose times are measurements, and those whose are not.

    Args:
        path: as for :func:`bnnlib.analysis.runs.load`.

    Returns:
        Both with the columns of :func:`bnnlib.analysis.runs.load` and ``ranks_a_host``,
        ``global_batch`` (images a step of all ranks) and ``why_not``: ranks that share cores (or
        records that do not tell how many there are), runs that the profile's clock slowed, and runs
        whose speed is unknown or whose record is damaged, are no measurement of scaling.
    """
    damaged = dict[str, str]()
    table = run_tables.load(path, damaged)
    table = table[table.status == "finished"].copy()
    table["model"] = run_tables.method_names(table)
    for name, value in (("virtual_ranks", 1), ("compression", "none"), ("profile", False)):
        # Runs older than the parameter were made with what is its default now.
        table[name] = table[name].fillna(value) if name in table else value
    table["ranks_a_host"] = np.ceil(table.ranks / table.num_hosts.clip(lower=1)).astype(int)
    table["global_batch"] = (table.batch_size * table.virtual_ranks * table.ranks).astype(int)
    shared = table.ranks_a_host * table.threads_used > table.cores.astype(float)
    known = np.isfinite(table.images_per_second) & (table.images_per_second > 0)
    reasons = np.select(
        [~known, table.cores.isna(), shared, table.profile.astype(bool)],
        ["speed unknown", "cores unknown", "ranks share cores", "profiled"],
        "",
    )
    table["why_not"] = reasons
    good = table.why_not == ""
    unread = pd.DataFrame(
        [
            {"run_id": Path(directory).name, "path": directory, "profile": False, "why_not": why}
            for directory, why in dict.fromkeys(damaged, "record damaged").items()
        ]
    )
    left_out = pd.concat([table[~good], unread]) if damaged else table[~good]
    return table[good].reset_index(drop=True), left_out.reset_index(drop=True)


def efficiencies(table: pd.DataFrame) -> pd.DataFrame:
    """Weak and strong scaling against one rank without communication, with 95 % intervals.

    Weak: the same images a rank a step. Strong: the same images a step of all ranks together. The
    interval is over repeats, of the logarithm of the ratio of means (Welch's t, the two variances
    differ); of single runs there is none.

    Args:
        table: of :func:`timings`.

    Returns:
        A row a model, data set, kind (``weak`` or ``strong``), batch of the one rank and number of
        ranks, one rank among them: ``repeats``, ``images_per_second`` of all ranks, ``low`` and
        ``high`` of it, ``step_ms`` (median), ``speedup``, ``efficiency``, ``efficiency_low`` and
        ``efficiency_high``.
    """
    rows: list[dict[str, Any]] = []
    for same, selected in table.groupby(list(_SAME), sort=False):
        for batch, alone in selected[selected.ranks == 1].groupby("global_batch"):
            for kind, column in (("weak", "images_a_rank"), ("strong", "global_batch")):
                others = selected.assign(images_a_rank=selected.global_batch // selected.ranks)
                others = others[(others[column] == batch) & (others.ranks > 1)]
                groups = [(1, alone), *others.groupby("ranks")]
                if len(groups) < 2:
                    continue
                for ranks, runs in groups:
                    ratio, low, high = _ratio(runs.images_per_second, alone.images_per_second)
                    speed, speed_low, speed_high = _ratio(runs.images_per_second, None)
                    rows.append(
                        dict(zip(_SAME, same, strict=True))
                        | {
                            "kind": kind,
                            "batch": int(batch),
                            "ranks": int(ranks),
                            "hosts": int(runs.num_hosts.max()),
                            "repeats": len(runs),
                            "images_per_second": speed,
                            "low": speed_low,
                            "high": speed_high,
                            "step_ms": float(runs.step_ms_p50.median()),
                            "speedup": ratio,
                            "efficiency": ratio / ranks,
                            "efficiency_low": low / ranks if ranks > 1 else 1.0,
                            "efficiency_high": high / ranks if ranks > 1 else 1.0,
                        }
                    )
    return pd.DataFrame(rows, columns=EFFICIENCY_COLUMNS)


EFFICIENCY_COLUMNS = (
    *_SAME,
    *("kind", "batch", "ranks", "hosts", "repeats", "images_per_second", "low", "high", "step_ms"),
    *("speedup", "efficiency", "efficiency_low", "efficiency_high"),
)


def _ratio(values: pd.Series, base: pd.Series | None) -> tuple[float, float, float]:
    """The ratio of geometric means and its 95 % interval; NaN where a side has one value."""
    sides = [np.log(side.to_numpy(float)) for side in (values, base) if side is not None]
    means = [side.mean() for side in sides]
    ratio = means[0] - (means[1] if len(sides) > 1 else 0.0)
    if min(map(len, sides)) < 2:
        return math.exp(ratio), math.nan, math.nan
    parts = [side.var(ddof=1) / len(side) for side in sides]
    variance = sum(parts)
    if variance == 0:
        return math.exp(ratio), math.exp(ratio), math.exp(ratio)
    freedom = variance**2 / sum(
        part**2 / (len(side) - 1) for part, side in zip(parts, sides, strict=True)
    )
    half = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    return math.exp(ratio), math.exp(ratio - half), math.exp(ratio + half)


def times_to_accuracy(table: pd.DataFrame, target: float) -> pd.DataFrame:
    """Training time until the test accuracy of the posterior's means first reaches `target`.

    The time is that of the steps; evaluation is left out, and the graph's first run counts as so
    many steps of the run's median.

    Args:
        table: of :func:`timings`, runs with `evaluate_every`.
        target: accuracy, 0 to 1.

    Returns:
        A row a run: model, dataset, ranks, global_batch, learning_rate_scaling, run_id,
        ``accuracy`` (the last), ``epochs`` and ``seconds`` to the target and ``node_hours``; NaN
        for a run that does not reach it.
    """
    rows = []
    for run in table.to_dict("records"):
        reached = read_accuracy(run["path"])
        if not reached:
            continue
        lines = read_steps(run["path"])
        counts = np.diff([0, *(line.step for line in lines)])
        times = np.array([line.seconds for line in lines])
        warm = np.array([line.warmup for line in lines])
        if not warm.all():
            times[warm] = counts[warm] * np.median(times[~warm] / counts[~warm])
        ends = dict(zip((line.step for line in lines), np.cumsum(times), strict=True))
        first = next((one for one in reached if one.accuracy >= target), None)
        seconds = math.nan if first is None else float(ends[first.step])
        rows.append(
            {
                key: run[key]
                for key in ("model", "dataset", "ranks", "global_batch", "learning_rate_scaling")
            }
            | {
                "run_id": run["run_id"],
                "accuracy": reached[-1].accuracy,
                "epochs": math.nan if first is None else first.epoch,
                "seconds": seconds,
                "node_hours": seconds * run["num_hosts"] / 3600,
            }
        )
    return pd.DataFrame(rows, columns=ACCURACY_COLUMNS)


ACCURACY_COLUMNS = (
    *("model", "dataset", "ranks", "global_batch", "learning_rate_scaling", "run_id"),
    *("accuracy", "epochs", "seconds", "node_hours"),
)


def ways_to_grow(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The runs of one rank with those that keep the global batch, and with those that scale."""
    one = table[table.ranks == 1]
    more = table[table.ranks > 1]
    batch = one.global_batch.min() if len(one) else more.global_batch.min()
    one = one[one.global_batch == batch]
    ways = {}
    for label, rows in (
        ("the same global batch", more[more.global_batch == batch]),
        ("a batch per rank, learning rate in proportion", more[more.global_batch > batch]),
    ):
        if len(rows):
            ways[label] = pd.concat([one, rows])
    return ways or {"one rank": one}


def profiles(path: str | Path) -> pd.DataFrame:
    """Where a step's time goes, of all profiled runs below a folder, a row a run and rank.

    Returns:
        model, ranks, batch_size, cores_shared (whether ranks shared cores) and the columns of
        :func:`bnnlib.record.profile.summary`; empty without such runs.
    """
    good, rest = timings(path)
    table = pd.concat([good, rest])
    rows = []
    for run in table[table.profile.astype(bool)].to_dict("records"):
        summary = step_profile.summary(step_profile.read_profile(run["path"]))
        shared = not run["ranks_a_host"] * run["threads_used"] <= run["cores"]
        whose = {
            "model": run["model"],
            "ranks": run["ranks"],
            "batch_size": run["batch_size"],
            "cores_shared": shared,
        }
        rows.append(summary.assign(**whose))
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def means_of_ranks(table: pd.DataFrame) -> pd.DataFrame:
    """The means of :func:`profiles` over ranks and repeats, a row a model and number of ranks."""
    means = table.groupby(["model", "ranks"], sort=False).mean(numeric_only=True).reset_index()
    order = in_order(means.model)
    return means.sort_values(
        ["model", "ranks"], key=lambda c: c.map(order.index) if c.name == "model" else c
    )


def bytes_a_step(table: pd.DataFrame, profiled: pd.DataFrame) -> dict[str, int]:
    """What a rank of each model gives to the average each step, in bytes.

    Args:
        table: of :func:`timings`.
        profiled: of :func:`profiles`; it tells the bytes of runs older than their own record of it.

    Raises:
        RecordError: the records of a model do not tell.
    """
    num_bytes: dict[str, int] = {}
    for rows, column in ((profiled, "bytes"), (table, "bytes_a_step")):
        if column in rows:
            num_bytes |= rows.dropna(subset=column).groupby("model")[column].first().astype(int)
    unknown = sorted(set(table.model) - set(num_bytes))
    if unknown:
        raise RecordError(
            f"no record tells how many bytes {', '.join(unknown)} gives to the average each step: "
            "they are older than this number; train one run of each with `profile: true`"
        )
    return {model: int(num_bytes[model]) for model in table.model}


def calibration(path: str | Path) -> pd.DataFrame:
    """Scores of the test set and OOD AUROC of all finished runs below a folder, by ranks.

    Returns:
        A row a run and score, tidy: model, ranks (virtual ones, on all processes), ``batch`` (``per
        rank`` where a rank's batch is that of the run of one rank, ``global`` where the batch of
        all ranks is), noise (``independent``, ``shared`` or ``G streams``), seed, score, value. A
        run of one rank stands in both batches and both noises.
    """
    damaged = dict[str, str]()  # timings, which every reader of this table calls, names them
    runs = run_tables.load(path, damaged)
    runs = runs.assign(model=run_tables.method_names(runs))[runs.status == "finished"]
    runs = runs.assign(ranks=(runs.ranks * runs.virtual_ranks).astype(int))
    sets = run_tables.load_evaluation(path, damaged).set_index(["run_id", "set"])
    rows = []
    for run in runs.to_dict("records"):
        if (run["run_id"], "test") not in sets.index:  # an old record without evaluation rows
            continue
        alone = runs[(runs.model == run["model"]) & (runs.ranks == 1)]
        if alone.empty:
            continue
        batch, base = int(run["batch_size"]), int(alone.batch_size.iloc[0])
        kinds = [
            kind
            for kind, holds in (
                ("per rank", batch == base),
                ("global", batch * run["ranks"] == base),
            )
            if holds
        ]
        streams = int(run["noise_streams"])
        noise = {0: "independent", 1: "shared"}.get(streams, f"{streams} streams")
        noises = [noise] if run["ranks"] > 1 else ["independent", "shared"]
        scores = {name: run[name] for name in ("accuracy", "nll", "ece")}
        for name in sets.loc[run["run_id"]].query("kind == 'ood'").index:
            scores[f"AUROC {name}"] = sets.loc[(run["run_id"], name)].auroc_entropy
        rows += [
            {
                "model": run["model"],
                "ranks": run["ranks"],
                "batch": kind,
                "noise": noise,
                "seed": run["seed"],
                "num_images": sets.loc[(run["run_id"], "test")].num_images,
                "score": score,
                "value": value,
            }
            for kind in kinds
            for noise in noises
            for score, value in scores.items()
        ]
    columns = ["model", "ranks", "batch", "noise", "seed", "num_images", "score", "value"]
    return pd.DataFrame(rows, columns=columns)
