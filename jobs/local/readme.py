"""The sentences of README.md and others that carry numbers, made from the tables in figures/.

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

import numpy as np
import pandas as pd

from bnnlib.analysis.questions.answers import noise_of_dense
from bnnlib.analysis.words import between, counted, listed, number, percent, side, signed_between
from bnnlib.names import in_order

ROOT = Path(__file__).parents[2]
RANKS_TOLD = 16  # at how many ranks the second answer says what was measured
STATES_TOLD = {"converged": "after the long training", "ten epochs": "after ten epochs"}
# Lines of their own, or within one, such as a table's cell.
_BLOCK = re.compile(r"(<!-- made: (\w+) -->)(\n?).*?(<!-- end -->)", re.DOTALL)


def answers(figures: Path) -> str:
    """The three answers below the first figure."""
    told = (calibrated(figures), replaced(figures), nodes(figures))
    return "\n".join(f"{place}. {sentence}" for place, sentence in enumerate(told, 1))


def compared(differences: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table of differences that have an interval, and are finite."""
    return differences[np.isfinite(differences[["mean", "low"]]).all(axis=1)]


def calibrated(figures: Path) -> str:
    """What training until KL stands still does to the calibration, under each prior."""
    scores, change = (
        pd.read_csv(figures / f"convergence/{name}.csv", dtype={"prior": str})
        for name in ("side_by_side", "differences")
    )
    rows = scores[(scores.model == "BNN_FC_flip") & (scores.prior == "1")]
    rows, twin = (
        own.set_index(["state", "score"]) for own in (rows, scores[scores.model == "CNN_FC"])
    )
    less = change[change.what == "converged less ten epochs"]
    less = less[(less.model == "BNN_FC_flip") & (less.score == "ece_debiased")]
    less = less.dropna(subset="low").set_index("prior")
    sides = {prior: side(row.low, row.high) for prior, row in less.iterrows()}
    so = {1: "worse", -1: "better", 0: "no differently, as far as is shown,"}[sides["1"]]
    other = {1: "worse", -1: "better", 0: ""}[-sides["1"]]
    but = f", but under a narrow prior {other}" if other and -sides["1"] in sides.values() else ""

    def of(own: pd.DataFrame, state: str, score: str, places: int) -> str:
        row = own.loc[(state, score)]
        return between(row["mean"], row.low, row.high, places)

    def sure(own: pd.DataFrame) -> str:
        row = own.loc[("converged", "temperature")]
        word = {1: "It is too sure", -1: "It is not sure enough", 0: "It is as sure as it is right"}
        told = of(own, "converged", "temperature", 2)
        return f"{word[side(row.low - 1, row.high - 1, 2)]} (temperature {told})"

    squares = {prior: f"{prior}²" if prior != "1" else "1" for prior in less.index}
    changes = ", ".join(
        f"{signed_between(row['mean'], row.low, row.high)} under N(0, {squares[prior]})"
        for prior, row in less.iterrows()
    )
    judged = len(compared(change))
    return (
        "**Trained until its KL stands still, a posterior is calibrated "
        f"{so} than after ten epochs{but}.** Dense network (`BNN_FC_flip`), full MNIST, prior "
        f"N(0, 1): the debiased ECE is {of(rows, 'converged', 'ece_debiased', 4)} there and "
        f"{of(rows, 'ten epochs', 'ece_debiased', 4)} after ten epochs of the defaults. "
        f"{sure(rows)}. The deterministic twin, trained as long, has "
        f"{of(twin, 'converged', 'ece_debiased', 4)}. {sure(twin)}. Paired by seed, the ECE's "
        f"change is {changes}. The long training has other rates and batches, too, so that length "
        f"alone is not shown to be the cause ({counted(int(rows.seeds.min()), 'seed')}; of "
        f"{counted(judged, 'comparison')})."
    )


def replaced(figures: Path) -> str:
    """From how many ranks on Flipout is needless, and where it never is."""
    needless, per_rank, noise = (
        pd.read_csv(figures / f"gradient_variance/{name}.csv")
        for name in ("needless", "per_rank", "noise_against_ranks")
    )
    dense = needless[(needless.network == "BNN_FC") & (needless.bayesian_layers == "first")]
    rows = dense.set_index(["state", "global_batch"])
    kept = per_rank[(per_rank.network == "BNN_FC") & (per_rank.bayesian_layers == "first")]
    kept = kept[kept.state == "initial"].sort_values("ranks")
    few, many = kept.iloc[0], kept.iloc[-1]
    not_there = ", not where each keeps its own" if many.low > 1.05 else ""
    found = pd.concat(noise_of_dense(noise)).dropna(subset="low")
    measured = found[found.x == RANKS_TOLD].set_index("series")

    def of(state: str, batch: int) -> str:
        row = rows.loc[(state, batch)]
        value, low, high = (math.ceil(row[k]) for k in ("ranks", "ranks_low", "ranks_high"))
        return between(value, low, high, 0)

    def ratio(state: str) -> str:
        row = measured.loc[state]
        return between(row.value, row.low, row.high, 2)

    return (
        f"**Ranks take Flipout's place where they share a batch{not_there}.** "
        "Where they share 64 images, a law made of one rank's noise says that plain "
        "reparameterization comes within 5 % of Flipout's gradient noise from "
        f"{of('initial', 64)} ranks on before training, and from {of('converged', 64)} on once "
        f"converged. Measured on {RANKS_TOLD} ranks, it has {ratio('before training')} and "
        f"{ratio('converged')} times Flipout's. With 64 images for each rank it has "
        f"{between(few.ratio, few.low, few.high, 2)} times Flipout's noise on one rank and "
        f"{between(many.ratio, many.low, many.high, 2)} times on {many.ranks}, before training."
    )


def unsure(figures: Path) -> str:
    """What fewer training images do to both parts of a mean-field network's uncertainty."""
    table, beside = (
        pd.read_csv(figures / f"uncertainty_decomposition/{name}.csv").dropna(subset="low")
        for name in ("differences", "beside_ensemble")
    )
    sizes = table[table.what != "less ambiguous"]
    network = sizes[sizes.method == "BNN_FC_nonflip"]
    sides = {
        (method, part): [side(row.low, row.high) for row in rows.itertuples()]
        for (method, part), rows in sizes.groupby(["method", "part"])
    }
    epistemic, aleatoric = (sides["BNN_FC_nonflip", part] for part in ("epistemic", "aleatoric"))
    twins = sides.get(("ensemble", "epistemic"))
    ensemble = f"; five twins' ensemble lowers its own on {twins.count(1)}" if twins else ""
    rows = network.set_index(["part", "kind"])
    runs = pd.read_csv(figures / "uncertainty_decomposition/runs.csv")
    steps = runs[runs.model == "BNN_FC_nonflip"].groupby("train_images").steps.max()
    few, most = int(steps.iloc[0]), int(steps.iloc[-1])
    beside_data = (
        f" The {steps.index[0]:,} images had {few:,} steps and the {steps.index[-1]:,} had "
        f"{most:,}: whether the steps make the difference is not measured."
        if few != most
        else ""
    )

    def of(part: str, kind: str) -> str:
        row = rows.loc[(part, kind)]
        return signed_between(row["mean"], row.low, row.high)

    kinds = f"{len(epistemic)} kinds of image"
    return (
        f"**More data lower the epistemic part on {epistemic.count(1)} of {kinds} and raise it on "
        f"{epistemic.count(-1)}; the aleatoric part, which should stay, falls on "
        f"{aleatoric.count(1)}.** Dense mean-field network, 540 less 54,000 training images: "
        f"epistemic {of('epistemic', 'clean')} nats on clean and {of('epistemic', 'near')} on "
        f"unknown (near) images, aleatoric {of('aleatoric', 'clean')} and "
        f"{of('aleatoric', 'near')}{ensemble} ({counted(int(network.seeds.min()), 'seed')}; of "
        f"{counted(len(table) + len(beside), 'comparison')}).{beside_data}"
    )


def removed(figures: Path, share: float = 0.8) -> str:
    """What weights that are removed take with them, and weights whose rho is set to 0."""
    table = pd.read_csv(figures / "pruning/differences.csv")
    own = table[(table.network == "BNN_FC_flip") & (table.by == "signal_to_noise")]
    rows = own[own.share == share].set_index(["what", "score", "state"]).sort_index()
    most = math.ceil(-1000 * min(0.0, rows.loc[("pruned less whole", "accuracy")].low.min())) / 10
    harm = rows.loc[("trap less zero", "accuracy")].high < -0.01
    blind = (rows.loc[("pruned less whole", "auroc_near")].high < 0).any()
    head = f"{percent(share)} of the weights can go for at most {most:.1f} points of accuracy"
    head += ", but some of the detection of foreign images goes with them" if blind else ""
    states = [STATES_TOLD[state] for state in harm.index[harm]]
    head += f"; {' and '.join(states)} they must be exactly 0" if states else ""
    judged = len(compared(table))

    def of(what: str, score: str) -> str:
        ends = (rows.loc[(what, score, state)] for state in ("converged", "ten epochs"))
        one, other = (signed_between(row["mean"], row.low, row.high) for row in ends)
        words = STATES_TOLD["converged"], STATES_TOLD["ten epochs"]
        return f"{one} {words[0]} and {other} {words[1]}"

    return (
        f"**{head}.** Dense network (`BNN_FC_flip`), full MNIST, prior N(0, 1), weights by signal "
        f"to noise. Where they are exactly 0, accuracy changes by "
        f"{of('pruned less whole', 'accuracy')}. Where mean and ρ are set to 0, as published code "
        f"does, it changes by {of('trap less whole', 'accuracy')}. With exact zeros the AUROC of "
        f"near sets changes by {of('pruned less whole', 'auroc_near')} "
        f"({counted(int(rows.seeds.min()), 'seed')}; of {counted(judged, 'comparison')})."
    )


def nodes(figures: Path) -> str:
    """What a step costs on thousands of nodes, by simulation and by the cost model."""
    table = pd.read_csv(figures / "simulation/simulated.csv")
    rows = table.set_index(["source", "nodes"])
    simulations = (
        pd.read_csv(figures / "simulation/table.csv").set_index(["spread", "ranks"]).sort_index()
    )
    most = int(table.nodes.max())
    varies = "recursive doubling, computing varies as measured"
    varied = rows.loc[(varies, most)].efficiency
    even, fitted = (
        rows.loc[(source, most)].efficiency
        for source in ("recursive doubling", "α-β and a wait a doubling")
    )
    steps = int(simulations.loc[("as measured", most)].steps.min())
    published = table[table.source == "published, by eye"].iloc[-1]
    here = rows.loc[(varies, published.nodes)]
    low, high = (here.efficiency * here.ms / end for end in (here.high, here.low))
    costs = "more" if even - varied > 1 - even else "no more"
    missed = 1 - high < (1 - published.efficiency) / 2
    but = ", but the simulation misses most of the loss that was measured" if missed else ""
    return (
        f"**On thousands of simulated nodes the ranks' waiting costs {costs} than the "
        f"network{but}.** On {int(published.nodes)} nodes, the most that the original study "
        f"measured, the simulation keeps {between(here.efficiency, low, high, 2)} of a perfect "
        f"speed-up, and the study kept {number(published.efficiency, 2)} (read by eye). On "
        f"{most:,} nodes it keeps {number(varied, 2)} if computing varies as measured on one node "
        f"of Theta, {number(even, 2)} if it does not vary, and a cost model fitted to two nodes "
        f"keeps {number(fitted, 2)}. These three have no interval: the first is of "
        f"{counted(steps, 'step')}, nearly all as long as the longest step of one node's log."
    )


def cooled(figures: Path) -> str:
    """What a tenth of the KL term's weight changes, at the end of training where that is known."""
    change = pd.read_csv(figures / "prior_temperature/differences.csv")
    known = compared(change)
    rows = known[(known.what == "less defaults") & (known.knob == "kl_weight")]
    rows = rows[(rows.model == "BNN_FC_flip") & (rows.setting == 0.1)]
    state = next((s for s in ("converged", "ten epochs") if s in set(rows.state)), "")
    if not state:
        return "Too few seeds are trained: `make reproduce QUESTION=prior_temperature` goes on."
    rows = rows[rows.state == state].set_index("score")
    of = {score: signed_between(row["mean"], row.low, row.high) for score, row in rows.iterrows()}
    nll, accuracy, ece = (rows.loc[score] for score in ("nll", "accuracy", "ece_debiased"))
    auroc = rows.loc["auroc_near"]
    told: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for row, sign, words in (
        (nll, -1, ("lowers the NLL", "raises the NLL", "a lower NLL")),
        (accuracy, 1, ("is more accurate", "is less accurate", "a gain in accuracy")),
        (ece, -1, ("calibrates better", "calibrates worse", "a better calibration")),
        (auroc, 1, ("tells near images better", "tells near images worse", "a better detection")),
    ):
        better = sign * side(row.low, row.high)
        told[better].append(words[{1: 0, -1: 1, 0: 2}[better]])
    so = "A tenth of the KL term's weight " + ", but ".join(
        listed(told[better]) for better in (1, -1) if told[better]
    )
    so = (
        so
        if told[1] or told[-1]
        else "A tenth of the KL term's weight changes nothing that is shown"
    )
    so += f"; {listed(told[0])} is not shown" if told[0] else ""
    so += "; the end of training is not measured" if state == "ten epochs" else ""
    when = {"converged": "at the end of training", "ten epochs": "after ten epochs of the defaults"}
    return (
        f"**{so}.** Dense network (`BNN_FC_flip`), full MNIST, {when[state]}: in place of the "
        f"whole weight it changes the NLL by {of['nll']}, accuracy by {of['accuracy']}, "
        f"debiased ECE by {of['ece_debiased']} and the AUROC of near sets by {of['auroc_near']} "
        f"({counted(int(rows.seeds.min()), 'seed')}; four of {counted(len(known), 'comparison')})."
    )


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


def tried(figures: Path) -> str:
    """The settings that were tried on the digits."""
    return _settings(pd.read_csv(figures / "convergence/tried.csv"), 3)


def tried_mnist(figures: Path) -> str:
    """The settings that were tried on full MNIST."""
    return _settings(pd.read_csv(figures / "convergence/mnist.csv"), 4)


def _settings(table: pd.DataFrame, digits: int) -> str:
    """A row a setting, the least loss first."""
    lines = [
        "| network | epochs | rate | rho × | besides | loss | KL fell by | accuracy | NLL | ECE |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    table = table.sort_values(["model", "epochs", "loss"], ascending=[False, True, True])
    for row in table.itertuples():
        besides = [
            "constant rate" if row.learning_rate_schedule == "constant" else "",
            f"natural step {row.natural}" if isinstance(row.natural, str) else "",
            f"KL annealed over {row.kl_annealing_epochs:g}" if row.kl_annealing_epochs else "",
            f"first deviation {row.posterior_stddev:g}" if row.posterior_stddev else "",
        ]
        cells = [f"`{row.model}`", f"{row.epochs}", f"{row.learning_rate:g}", f"{row.rho_rate:g}"]
        cells += [", ".join(filter(None, besides)), number(row.loss, digits)]
        cells += [percent(row.kl_change, 1), number(row.accuracy, digits)]
        lines.append(
            f"| {' | '.join([*cells, number(row.nll, digits), number(row.ece, digits)])} |"
        )
    return "\n".join(lines)


BLOCKS: dict[str, Callable[[Path], str]] = {
    made.__name__: made for made in (answers, efficiency, speed)
}


# The blocks of each file that has some.
FILES: dict[str, Mapping[str, Callable[[Path], str]]] = {
    "README.md": BLOCKS,
    "notebooks/README.md": {
        made.__name__: made for made in (calibrated, replaced, removed, cooled, unsure, nodes)
    },
    "figures/ivon/README.md": {"ivon": ivon},
    "figures/convergence/README.md": {made.__name__: made for made in (tried, tried_mnist)},
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

    def made(found: re.Match[str]) -> str:
        opening, name, line, end = found.groups()
        return f"{opening}{line}{blocks[name](figures)}{line}{end}"

    return _BLOCK.sub(made, text)


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
