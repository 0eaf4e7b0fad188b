"""The README's captions and numbers, made from the tables in figures/, and figures/ivon's own.

    python -m jobs.local.readme            writes them between their comments
    python -m jobs.local.readme --check    exit code 1 where a file says something else

A sentence that carries a number stands in one of these functions, so that it changes with its
table, and says what the table says, for or against. A test runs the check.
"""

from __future__ import annotations

import argparse
import difflib
import json
import math
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bnnlib.analysis.words import between, counted, labels, listed, number, percent, side, span
from bnnlib.names import in_order

ROOT = Path(__file__).parents[2]
# Of a difference and its interval, and of what counts as zero.
_DIGITS = 3
_BLOCK = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def digits(figures: Path) -> str:
    """The caption of accuracy and ECE against severity."""
    runs = pd.read_csv(figures / "digits/runs.csv")
    pairs = pd.read_csv(figures / "digits/differences.csv").set_index(["set", "score"])
    seeds = runs.seed.nunique()
    text = (
        f"Real handwritten digits, {runs.num_train.iloc[0]:,} to train on and "
        f"{runs.num_test.iloc[0]:,} to test on; {runs.ranks.iloc[0]} ranks, "
        f"{counted(seeds, 'seed')}. {_posteriors(runs)} "
    )
    judged = 0
    for key, where, less, more in (
        (("rotate-60", "ece"), "Turned by 60 degrees", "have a lower", "have a higher"),
        (("test", "ece"), "On unshifted digits", "have a lower", "have a higher"),
        (("gaussian_noise-5", "accuracy"), "Under the strongest noise", "lose", "gain"),
    ):
        what = "debiased ECE than their twin" if key[1] == "ece" else "accuracy beside their twin"
        text += f"{where}, {_beside_twin(pairs.loc[[key]], less, more, what)}. "
        judged += len(pairs.loc[[key]])
    text += f"Brackets: 95 % intervals over test images, of {counted(judged, 'comparison')}"
    return f"*{text}{'; one seed says nothing of the spread over seeds' * (seeds == 1)}.*"


def _posteriors(runs: pd.DataFrame) -> str:
    """How many posteriors have converged, and which have not."""
    bayesian = runs[runs.kl_change.notna()]
    not_yet = bayesian[~bayesian.converged.astype(bool)]
    if len(not_yet):
        shown = ", ".join(
            f"{row.model} ({percent(row.kl_change, 1)})" for row in not_yet.itertuples()
        )
        return f"Posteriors that have not converged (KL's change over the last tenth): {shown}."
    change = bayesian.kl_change.abs()
    return (
        f"All {len(bayesian)} posteriors have converged: over the last tenth of training KL "
        f"changed by {percent(change.min(), 1)} to {percent(change.max(), 1)}."
    )


def _beside_twin(rows: pd.DataFrame, less: str, more: str, what: str) -> str:
    """How many networks lie below their twin and above it, and by how much; the rest are named."""
    rows = rows.assign(
        model=rows.model.map(labels(rows.model)),
        side=[side(row.low, row.high, _DIGITS) for row in rows.itertuples()],
        size=rows.difference.abs(),
    )
    parts = []
    for which, verb in ((-1, less), (1, more)):
        there = rows[rows.side == which].sort_values("size")
        if len(there):
            ends = [f"{_size(row)} ({row.model})" for row in there.iloc[[0, -1]].itertuples()]
            who = "all" if len(there) == len(rows) else f"{len(there)} of {len(rows)}"
            parts.append(f"{who} {verb} {what}: by {span(*ends)}")
    rest = rows.model[rows.side == 0]
    if len(rest):
        parts.append(f"no difference is shown for {listed(rest)}")
    return "; ".join(parts)


def _size(row: Any) -> str:
    """A difference without its sign, and its interval."""
    low, high = sorted((abs(row.low), abs(row.high)))
    return between(abs(row.difference), low, high, _DIGITS)


def ranks(figures: Path) -> str:
    """The caption of calibration against ranks."""
    table = pd.read_csv(figures / "scaling/calibration_against_ranks.csv")
    ece = table[(table.score == "ece") & (table.noise == "independent")]
    apart = {batch: _furthest(rows) for batch, rows in ece.groupby("batch")}
    return (
        f"*The same digits, six epochs, {counted(table.seed.nunique(), 'seed')}; the posteriors "
        "have not converged. With a fixed global batch, shared by the ranks, the ECE at 2 to "
        f"{table.ranks.max()} ranks differs from that of one rank by at most "
        f"{apart['global']:.3f}, over all networks. With a fixed batch per rank it differs by up "
        f"to {apart['per rank']:.3f}; but there more ranks also mean fewer steps, so these panels "
        "compare runs of different lengths. Dotted: all ranks share their weight noise. "
        "One seed has no interval: this figure describes, it proves nothing.*"
    )


def _furthest(rows: pd.DataFrame) -> float:
    """The largest distance of any number of ranks from one rank, over networks."""
    wide = rows.pivot_table(index="model", columns="ranks", values="value")
    return float(wide.drop(columns=1).sub(wide[1], axis=0).abs().max().max())


def efficiency(figures: Path) -> str:
    """What two ranks gain on two cores."""
    table = pd.read_csv(figures / "scaling/efficiency.csv")
    two = table[(table.kind == "weak") & (table.batch == 64) & (table.ranks == 2)]
    rows = two.set_index("model")
    shown = ", ".join(
        f"`{model}` {between(row.efficiency, row.efficiency_low, row.efficiency_high, 2)}"
        for model, row in ((model, rows.loc[model]) for model in in_order(rows.index))
    )
    return (
        "Two ranks on this machine's two cores reach this share of twice one rank's images/s (64 "
        f"images per rank, {two.repeats.min()} repeats, 95 % intervals): {shown}."
    )


def theta(figures: Path) -> str:
    """How far the cost model is from the original study's measurements."""
    table = pd.read_csv(figures / "scaling/theta.csv")
    most = table[table.nodes == table.nodes.max()].set_index("network")
    shown = " and ".join(f"{percent(row.error)} ({name})" for name, row in most.iterrows())
    return (
        "For thousands of nodes there is only a [prediction](figures/scaling/predictions.png). Its "
        f"cost model predicts {shown} more speed at {table.nodes.max()} nodes than the original "
        "study measured, as long as the wait for the slowest rank is left out."
    )


def convergence(figures: Path) -> str:
    """What training to the end of the ELBO does to the calibration."""
    scores, change = (
        pd.read_csv(figures / f"convergence/{name}.csv", dtype={"prior": str}).query(
            "model == 'BNN_FC_flip' and prior == '1'"
        )
        for name in ("side_by_side", "differences")
    )
    rows = scores.set_index(["state", "score"])
    paired = change[change.what == "converged less ten epochs"].set_index("score")

    def of(state: str, score: str, places: int) -> str:
        row = rows.loc[(state, score)]
        return between(row["mean"], row.low, row.high, places)

    accuracy = paired.loc["accuracy"]
    same = side(accuracy.low, accuracy.high) == 0
    told = "with no difference of accuracy shown" if same else "at another accuracy"
    modest = rows.loc[("converged", "temperature")].high < 1
    so = ", so that its converged posterior is underconfident" if modest else ""
    return (
        "Trained to the end of the ELBO, `BNN_FC_flip` under N(0, 1) on full MNIST has a debiased "
        f"ECE of {of('converged', 'ece_debiased', 4)}, after ten epochs of the defaults "
        f"{of('ten epochs', 'ece_debiased', 4)}, {told}; the temperatures that calibrate it are "
        f"{of('converged', 'temperature', 2)} and {of('ten epochs', 'temperature', 2)}"
        f"{so}; the AUROC of near foreign images is "
        f"{of('converged', 'auroc_near', 3)} and {of('ten epochs', 'auroc_near', 3)} "
        f"(means over {counted(int(rows.seeds.min()), 'seed')}, 95 % intervals)."
    )


def flipout(figures: Path) -> str:
    """From how many ranks on Flipout is needless."""
    table = pd.read_csv(figures / "gradient_variance/needless.csv")
    dense = table[(table.network == "BNN_FC") & (table.bayesian_layers == "first")]
    rows = dense.set_index(["state", "global_batch"])

    def of(state: str, batch: int) -> str:
        row = rows.loc[(state, batch)]
        value, low, high = (math.ceil(row[k]) for k in ("ranks", "ranks_low", "ranks_high"))
        return between(value, low, high, 0)

    return (
        "At a fixed global batch, ranks with noise of their own take Flipout's place: in the dense "
        "network plain reparameterization comes within 5 % of Flipout's noise from "
        f"{of('initial', 64)} ranks on at 64 images a step, and from {of('initial', 512)} at 512, "
        f"before training; from {of('converged', 64)} and {of('converged', 512)} once it has "
        "converged (95 % intervals). Where every rank keeps its batch, they never do."
    )


def speed(figures: Path) -> str:
    """How fast a step is beside TFP's layers."""
    table = pd.read_csv(figures / "bench/bench.csv")
    repeats = json.loads((figures / "bench/bench.json").read_text())["repeats"]
    ours = table[(table.threads == 1) & (table.baseline == "bnnlib") & table.speedup.notna()]
    times = ours.set_index("model").speedup
    shown = ", ".join(f"{times[model]:.1f} for `{model}`" for model in in_order(times.index))
    return (
        "How many times as fast a step of this library is as the same step by TFP's layers in a "
        f"hand-written `tf.function`, on one core (medians of {repeats} turns): {shown}."
    )


def mnist(figures: Path) -> str:
    """The table of full MNIST."""
    lines = [
        "| network | accuracy | NLL (nats) | ECE | ECE at T | training | evaluation |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in pd.read_csv(figures / "mnist/table.csv").itertuples():
        scores = [number(row.accuracy), *(number(x, 3) for x in (row.nll, row.ece, row.ece_scaled))]
        seconds = [f"{value:.0f} s" for value in (row.train_seconds, row.evaluation_seconds)]
        lines.append(f"| `{row.model}` | {' | '.join([*scores, *seconds])} |")
    return "\n".join(lines)


def ivon(figures: Path) -> str:
    """The table of IVON here and of its official code."""
    own, official = (pd.read_csv(figures / f"ivon/{name}.csv") for name in ("bnnlib", "official"))
    own = own.assign(code="bnnlib", start=np.where(own.model == "CNN_LeNet5", "glorot", "torch"))
    lines = ["| start | code | seeds | accuracy | NLL (nats) | ECE |", "|---|---|---|---|---|---|"]
    for (start, code), rows in pd.concat([own, official]).groupby(["start", "code"]):
        cells = [start, code, str(len(rows))]
        for score in ("accuracy", "nll", "ece"):
            mean, least, most = (rows[score].agg(how) for how in ("mean", "min", "max"))
            cells.append(f"{number(mean, 4)} ({number(least, 4)} to {number(most, 4)})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


BLOCKS: dict[str, Callable[[Path], str]] = {
    made.__name__: made
    for made in (digits, ranks, efficiency, theta, convergence, flipout, speed, mnist)
}


# The blocks of each file that has some.
FILES: dict[str, Mapping[str, Callable[[Path], str]]] = {
    "README.md": BLOCKS,
    "figures/ivon/README.md": {"ivon": ivon},
}


def fill(
    text: str,
    figures: Path = ROOT / "figures",
    blocks: Mapping[str, Callable[[Path], str]] = BLOCKS,
) -> str:
    """A file's text with every block as its table has it.

    Raises:
        KeyError: a comment names none of `blocks`.
    """
    return _BLOCK.sub(lambda found: found[1] + f"{blocks[found[2]](figures)}\n{found[3]}", text)


def write() -> None:
    """Makes the blocks of all files anew."""
    for name, blocks in FILES.items():
        path = ROOT / name
        path.write_text(fill(path.read_text(), blocks=blocks))


def main() -> int:
    """Writes or checks the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, say what differs")
    if not parser.parse_args().check:
        write()
        return 0
    differs = False
    for name, blocks in FILES.items():
        before = (ROOT / name).read_text()
        after = fill(before, blocks=blocks)
        lines, wanted = before.splitlines(keepends=True), after.splitlines(keepends=True)
        sys.stdout.writelines(difflib.unified_diff(lines, wanted, name, "the tables"))
        differs |= before != after
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
