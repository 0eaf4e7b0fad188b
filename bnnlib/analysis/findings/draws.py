"""What the figures of the number of draws show, and of the inside of one network."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bnnlib import metrics
from bnnlib.analysis.findings.common import over_runs
from bnnlib.analysis.words import between, counted, number, percent, side, signed_between, span
from bnnlib.names import in_order


def convergence(table: pd.DataFrame) -> str:
    """The paragraph under the draws, of :func:`bnnlib.analysis.tables.convergence`."""
    if table.empty:
        return (
            "No record here holds predictions of fewer draws: no run is stochastic, or all are old."
        )
    means = table.groupby(["model", "score", "draws"]).value.mean()
    lines = []
    for model in in_order(table.model):
        nll = means[model, "nll"]
        last = nll.index[-1]
        if len(nll) < 2:
            lines.append(f"\n- **{model}**: only {counted(last, 'draw')}.")
            continue
        if not np.isfinite(nll).all():
            shown = ", ".join(f"{number(value)} of {draws}" for draws, value in nll.items())
            lines.append(f"\n- **{model}**: NLL by the number of draws: {shown}.")
            continue
        first = table[(table.model == model) & (table.draws == nll.index[0])]
        change, accuracy = (
            over_runs(first[first.score == f"{score}_change"], "value", "low", "high")
            for score in ("nll", "accuracy")
        )
        # What remains to be gained is judged against the whole gain from the first draw on.
        gain = -change.estimate
        near = nll[nll <= nll.iloc[-1] + 0.05 * max(gain, 0.0) + 1e-12].index[0]
        text = (
            f"\n- **{model}**: from {counted(nll.index[0], 'draw')} to {last} NLL "
            f"{signed_between(*change)} (to {number(nll.iloc[-1])}) and accuracy "
            f"{signed_between(*accuracy)}"
        )
        if side(change.low, change.high) < 0:
            text += f"; {counted(near, 'draw')} bring{'s' if near == 1 else ''} 95 % of the gain"
        else:
            text += "; these runs do not show that more draws lower the NLL"
        if (model, "mutual_information") in means.index.droplevel("draws"):
            rows = table[(table.model == model) & (table.score == "mutual_information")]
            at_last = over_runs(rows[rows.draws == last], "value", "low", "high")
            text += f"; mutual information {between(*at_last)} nats"
            information = means[model, "mutual_information"]
            few = [draws for draws in information.index if 1 < draws < last]
            share = information[few[0]] / information.iloc[-1] if few and at_last.low > 0 else -1.0
            if 0.0 <= share <= 1.0:  # beyond them noise is shared out, not information
                text += f", of which {few[0]} draws show {percent(share)}"
        lines.append(text + ".")
    return "".join(lines).lstrip("\n")


# --- Inside one network --------------------------------------------------------------------------


def posterior_over_training(table: pd.DataFrame) -> str:
    """Says how the posterior moved, from :func:`bnnlib.analysis.tables.posterior_over_training`."""
    if table.empty:
        return "This run has no `posterior.jsonl`: its network has no posterior, or the run is old."
    lines = []
    for layer, selected in table.groupby("layer", sort=False):
        median = selected[selected.level == 0.5].pivot_table(
            index="epoch", columns="quantity", values="value"
        )
        # The tails say more of the means than their median, which is near 0 by symmetry.
        spread = selected[(selected.quantity == "mean") & selected.level.isin([0.05, 0.95])]
        widths = spread.pivot_table(index="epoch", columns="level", values="value")
        width = widths[0.95] - widths[0.05]
        length = f"{median.index[-1]:g} epoch{'' if median.index[-1] == 1 else 's'}"
        means = _moved("go", "a width of ", width, 3)
        lines.append(
            f"\n- **{layer}**: over {length} the middle 90 % of the posterior means {means}, "
            f"the median standard deviation {_moved('', '', median['stddev'], 3)}, "
            f"the median signal-to-noise ratio {_moved('', '', median.snr, 2)}."
        )
    return "".join(lines).lstrip("\n")


def _moved(verb: str, what: str, values: pd.Series, digits: int) -> str:
    """``go from a width of 0.1 to 0.2``, or where both are written alike ``at a width of 0.1``."""
    first, last = (number(values.iloc[end], digits) for end in (0, -1))
    if first == last:
        return f"{'stay ' if verb else ''}at {what}{first}"
    return f"{verb} from {what}{first} to {last}".lstrip()


def signal_to_noise(table: pd.DataFrame) -> str:
    """Says which weights stand out, from :func:`bnnlib.analysis.tables.signal_to_noise`."""
    if table.empty:
        return "This network has no posterior, so there is no signal-to-noise ratio."
    lines = []
    for layer, selected in table.groupby("layer", sort=False):
        shares = np.interp([0.5, 1.0, 2.0], selected.snr, selected.share)
        lines.append(
            f"\n- **{layer}**: {percent(shares[1])} of the weights have a mean smaller than "
            f"their standard deviation ({percent(shares[0])} below half of it); "
            f"{percent(1 - shares[2])} stand out by more than twice."
        )
    return "".join(lines).lstrip("\n")


def example_draws(table: pd.DataFrame) -> str:
    """Says what each image's draws are, from :func:`bnnlib.analysis.tables.example_draws`."""
    lines = []
    for image, selected in table.groupby("image", sort=False):
        probs = selected.pivot_table(index="draw", columns="class", values="probability")
        mean = probs.mean()
        first = int(mean.idxmax())
        votes = (probs.to_numpy().argmax(axis=1) == list(probs.columns).index(first)).mean()
        draws = probs.to_numpy()[:, np.newaxis]
        expected = float(metrics.expected_entropy(draws)[0])
        total = float(metrics.predictive_entropy(metrics.mean_probs(draws))[0])
        low, high = probs[first].quantile([0.05, 0.95])
        label = selected.label.iloc[0]
        verdict = ""
        if label >= 0:
            verdict = ", which is right" if label == first else f", but it is {int(label)}"
        middle = span(number(low, 2), number(high, 2))
        lines.append(
            f"\n- **{image}**: class {first} with probability {mean[first]:.3f} (5 % to 95 % of "
            f"the draws: {middle}){verdict}; {percent(votes)} of the draws choose "
            f"it. Entropy {total:.3f} nats, of which {max(total - expected, 0.0):.3f} epistemic."
        )
    return "".join(lines).lstrip("\n")
