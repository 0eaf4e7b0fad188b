"""What uncertainty says, in sentences: each number of the tables with its 95 % interval over seeds.

The tables are :mod:`bnnlib.analysis.questions.uncertainty_decomposition`'s, and `measured` is as
there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from bnnlib.analysis.questions.uncertainty_decomposition import (
    ALL,
    ENSEMBLE,
    FEW,
    KINDS,
    METHODS,
    NAMES,
    PARTS,
    UNKNOWN,
    Records,
    against_size,
    along,
    beside_ensemble,
    detection,
    differences,
    further,
    longer,
    longest,
    trained,
)
from bnnlib.analysis.words import (
    between,
    counted,
    number,
    percent_between,
    side,
    signed_between,
    span,
    within,
)
from bnnlib.metrics import Interval


def seeds(records: Records, measured: pd.DataFrame) -> str:
    """How many networks and seeds the answers rest on, and what they cost."""
    if measured.empty:
        return "Nothing has been measured yet."
    table = longest(measured)
    parts = []
    for method in [name for name in METHODS if name in set(table.method)]:
        counts = table[table.method == method].groupby("train_images").seed.nunique()
        sizes = ", ".join(f"{count} on {size:,} images" for size, count in counts.items())
        parts.append(f"{NAMES[method]} {sizes}")
    runs = trained(records)
    hours = runs.seconds.sum() / 3600 if len(runs) else 0.0
    return f"Seeds: {'; '.join(parts)}. All {counted(len(runs), 'run')}: {hours:.2f} core-hours."


def told_converged(records: Records) -> str:
    """How many posteriors have converged, by number of training images."""
    table = trained(records)
    table = table[table.converged.notna()] if len(table) else table
    if table.empty:
        return "No mean-field network has been trained yet."
    parts = [
        f"{int(runs.converged.astype(bool).sum())} of {len(runs)} on {size:,} images "
        f"(KL {span(number(runs.kl.min(), 0), number(runs.kl.max(), 0))} nats)"
        for size, runs in table.groupby("train_images")
    ]
    return (
        "KL(q‖p) has changed by less than 2 % over the last tenth of the training in "
        f"{', '.join(parts)}."
    )


def told_longer(measured: pd.DataFrame) -> str:
    """What the longer training changes of both parts."""
    table = longer(measured)
    table = table[table.part.isin(list(PARTS))]
    if table.empty:
        steps = measured[measured.method != ENSEMBLE].groupby("train_images").steps.max()
        least, most = (steps.get(size) for size in (FEW, ALL))
        if not least or not most or least == most:
            return "No shorter training on all images has been measured yet."
        return (
            f"The mean-field network's training on all {ALL:,} images has {most:,} steps, "
            f"{number(most / least, 1)} times those of the training on {FEW}. No equal number has "
            "been measured yet, so its differences above are of data and steps together."
        )
    lines = []
    for method, rows in table.groupby("method", sort=False):
        said = [
            f"{row.part} on {row.kind} images {signed_between(row.mean, row.low, row.high)}"
            for row in rows.itertuples()
        ]
        steps = measured[(measured.method == method) & (measured.train_images == ALL)].steps
        lines.append(
            f"- **{NAMES[str(method)]}** ({_pairs(rows)}), {steps.max():,} steps less "
            f"{steps.min():,}: {'; '.join(said)}"
        )
    return f"Longer trainings on all {ALL:,} images, in nats:\n\n" + "\n".join(lines)


def told_training(records: Records) -> str:
    """How long each method was trained on each size, and how well it knows its images."""
    table = trained(records)
    if table.empty:
        return "Nothing has been trained yet."
    table = table.assign(method=table.model.where(table.model != "CNN_FC", ENSEMBLE))
    lines = []
    for (method, size), runs in table.groupby(["method", "train_images"]):
        steps = span(*(f"{end:,.0f}" for end in (runs.steps.min(), runs.steps.max())))
        epochs = runs.steps * runs.batch_size / size
        epochs = span(*(f"{end:,.0f}" for end in (epochs.min(), epochs.max())))
        least, most = runs.train_nll.min(), runs.train_nll.max()
        digits = 6 if most < _BY_HEART else 3
        heart = ", so that it knows its images by heart" if most < _BY_HEART else ""
        lines.append(
            f"- **{NAMES[str(method)]}, {size:,} images** ({counted(len(runs), 'run')}): {steps} "
            f"steps, about {epochs} epochs; training NLL "
            f"{span(number(least, digits), number(most, digits))}{heart}"
        )
    return "How long each was trained, and the NLL of its own images, in nats:\n\n" + "\n".join(
        lines
    )


_BY_HEART = 1e-3  # nats: of its own images' labels it is sure to 1 in 1,000
WORDS = {1: "falls with data", -1: "rises with data", 0: "no difference shown"}


def told_size(measured: pd.DataFrame, part: str) -> str:
    """What fewer training images change of one part, a line a method."""
    table = differences(measured)
    table = table[(table.part == part) & table.what.str.endswith("images")]
    if table.empty:
        return "Nothing to compare yet."
    lines = []
    for method, rows in table.groupby("method", sort=False):
        said = [
            f"{row.kind} {signed_between(row.mean, row.low, row.high)} ({_verdict(row, WORDS)})"
            for row in rows.itertuples()
        ]
        lines.append(f"- **{NAMES[str(method)]}** ({_pairs(rows)}): {'; '.join(said)}")
    return f"The {part} part on {FEW} less on {ALL:,} images, in nats:\n\n" + "\n".join(lines)


def _pairs(rows: pd.DataFrame) -> str:
    return counted(int(rows.seeds.max()), "pair") + " of seeds"


def _verdict(row: Any, words: Mapping[int, str]) -> str:
    """The words of a difference's side of 0."""
    return "too few seeds for an interval" if pd.isna(row.low) else words[side(row.low, row.high)]


def told_theory(measured: pd.DataFrame) -> str:
    """On how many kinds of image each part does what theory says, a line a method."""
    table = differences(measured)
    table = table[table.what.str.endswith("images")].dropna(subset="low")
    if table.empty:
        return "Nothing to compare with theory yet."
    lines = []
    for method, rows in table.groupby("method", sort=False):
        said = []
        for part in PARTS:
            of_part = rows[rows.part == part]
            sides = [side(row.low, row.high) for row in of_part.itertuples()]
            counts = {where: sides.count(where) for where in (1, -1, 0)}
            said.append(
                f"the {part} part falls with data on {counts[1]} of {len(sides)} kinds of image, "
                f"rises on {counts[-1]}, and shows no difference on {counts[0]}"
            )
        lines.append(f"- **{NAMES[str(method)]}**: {'; '.join(said)}")
    theory = "Theory has the epistemic part fall on all kinds, and the aleatoric part stay:"
    return f"{theory}\n\n" + "\n".join(lines)


def told_share(measured: pd.DataFrame) -> str:
    """Whether the epistemic share tells unknown images from ambiguous ones, a line a method."""
    table = differences(measured)
    table = table[table.part == "share"]
    if table.empty:
        return "Nothing to compare yet."
    means = against_size(measured)
    means = means[(means.part == "share") & (means.train_images == ALL)]
    clean = further(measured)
    clean = clean[clean.part == "share"].set_index("method")
    words = {1: "greater, as theory says", -1: "smaller", 0: "no difference shown"}
    lines = []
    for method, rows in table.groupby("method", sort=False):
        of = {
            row.kind: percent_between(Interval(row.mean, row.low, row.high), 1)
            for row in means[means.method == method].itertuples()
        }
        said = [
            f"{row.kind} {of[row.kind]}, a difference of "
            f"{signed_between(row.mean, row.low, row.high)} ({_verdict(row, words)})"
            for row in rows.itertuples()
        ]
        if method in clean.index:
            own = clean.loc[method]
            verdict = _verdict(own, words | {1: "greater, though clean images are known"})
            said.append(
                f"clean {of['clean']}, a difference of "
                f"{signed_between(own['mean'], own.low, own.high)} ({verdict})"
            )
        lines.append(
            f"- **{NAMES[str(method)]}** ({_pairs(rows)}): ambiguous {of['ambiguous']}; "
            f"{'; '.join(said)}"
        )
    head = f"The epistemic share of the whole at {ALL:,} images, and its difference to ambiguous:"
    return f"{head}\n\n" + "\n".join(lines)


def told_peaks(measured: pd.DataFrame, kind: str) -> str:
    """Where each part is greatest along rotations or mixtures, a line a method and size."""
    table = along(measured, kind)
    if table.empty:
        return "Nothing has been measured along it yet."
    lines = []
    for (method, size), rows in table.groupby(["method", "train_images"], sort=False):
        if size not in (FEW, ALL):
            continue
        said = []
        for part in PARTS:
            of_part = rows[rows.part == part].set_index("value")
            peak = float(of_part["mean"].idxmax())
            place = f"{peak:g}°" if kind == "rotated" else f"λ = {peak:g}"
            at = of_part.loc[[0.0, peak], ["mean", "low", "high"]].to_numpy()
            first, most = (between(mean, low, high, 3) for mean, low, high in at)
            said.append(f"{part} {first} at 0, greatest at {place}: {most}")
        lines.append(f"- **{NAMES[str(method)]}, {size:,} images**: {'; '.join(said)}")
    return "Each part at the start and where it is greatest, in nats:\n\n" + "\n".join(lines)


def told_beside(measured: pd.DataFrame) -> str:
    """The epistemic part of the mean-field networks less the ensemble's, a line each."""
    table = beside_ensemble(measured)
    if table.empty:
        return "Nothing stands beside an ensemble yet."
    words = {1: "more", -1: "less", 0: "no difference shown"}
    lines = []
    for (method, size), rows in table.groupby(["method", "train_images"], sort=False):
        said = [
            f"{row.kind} {signed_between(row.mean, row.low, row.high)} ({_verdict(row, words)})"
            for row in rows.itertuples()
        ]
        lines.append(
            f"- **{NAMES[str(method)]}, {size:,} images** ({_pairs(rows)}): {'; '.join(said)}"
        )
    return "The epistemic part less the ensemble's, in nats:\n\n" + "\n".join(sorted(lines))


def told_detection(measured: pd.DataFrame) -> str:
    """How well each part tells unknown images from clean ones, a line a method and size."""
    table = detection(measured)
    table = table[table.kind.isin(UNKNOWN) & table.train_images.isin((FEW, ALL))]
    if table.empty:
        return "Nothing has been measured yet."
    lines = []
    for (method, size), rows in table.groupby(["method", "train_images"], sort=False):
        said = [
            f"{row.kind} by the {str(row.part).removeprefix('auroc_')} part "
            f"{between(*within(Interval(row.mean, row.low, row.high)), 3)}"
            for row in rows.sort_values(
                "kind", key=lambda kinds: kinds.map([*KINDS].index)
            ).itertuples()
        ]
        lines.append(f"- **{NAMES[str(method)]}, {size:,} images**: {'; '.join(said)}")
    return "AUROC against clean images:\n\n" + "\n".join(lines)


def told_comparisons(measured: pd.DataFrame) -> str:
    """How many comparisons the page makes, and how many exclude 0 by chance alone."""
    count = sum(
        len(table.dropna(subset="low"))
        for table in (differences(measured), beside_ensemble(measured))
    )
    more = len(further(measured).dropna(subset="low"))
    return (
        f"The page makes {counted(count, 'comparison')} that were named before the measurement, "
        f"and {more} more to judge what was expected; if nothing differed, "
        f"{number(0.05 * (count + more), 1)} of their intervals would exclude 0 by chance."
    )


def told_expected(measured: pd.DataFrame) -> str:
    """Which of the four expectations held, a line each, of the first mean-field network."""
    found, beside = differences(measured), beside_ensemble(measured)
    own, twins = (found[found.method == method] for method in (METHODS[0], ENSEMBLE))
    more = further(measured)
    more = more[more.method == METHODS[0]]
    sizes = own[own.what.str.endswith("images")]
    falls = more[more.what.str.endswith("images")]
    turns, mixtures = (
        more[more.what == what] for what in ("step of rotation", "λ = 0.5 less another")
    )
    epistemic, clean = sizes[sizes.part == "epistemic"], sizes[sizes.kind == "clean"]
    ensemble = twins[(twins.part == "epistemic") & (twins.kind == "clean")]
    expected = (
        (
            ("On clean images both parts fall with data", clean, 1),
            ("the aleatoric one falls by more", falls, 1),
        ),
        (
            (
                "On unknown images the epistemic part is smaller after few images",
                epistemic[epistemic.kind.isin(UNKNOWN)],
                -1,
            ),
        ),
        (
            ("Both parts rise with the rotation, from each step to the next up to 90°", turns, 1),
            ("both are greater at the even mixture than at any other", mixtures, 1),
            (
                "the epistemic share does not tell ambiguous from unknown images",
                own[own.part == "share"],
                0,
            ),
        ),
        (
            ("The ensemble's epistemic part falls with data on clean images", ensemble, 1),
            (
                "it is smaller than the mean-field network's everywhere",
                beside[beside.method == METHODS[0]],
                1,
            ),
        ),
    )
    return "\n".join(
        f"{place}. {'; '.join(f'{what}: {_judged(rows, wanted)}' for what, rows, wanted in one)}."
        for place, one in enumerate(expected, 1)
    )


def _judged(rows: pd.DataFrame, wanted: int) -> str:
    """Whether differences lie on the side of 0 where they were expected: 1, −1, or 0 for neither.

    Against it speaks an interval on another side, not one that holds 0. That no difference is
    shown refutes no expectation of none, and proves none.
    """
    known = rows.dropna(subset="low")
    sides = [side(row.low, row.high) for row in known.itertuples()]
    of = counted(len(sides), "interval")
    against = [one not in (0, wanted) for one in sides]
    if any(against):
        where = "0 lies outside" if wanted == 0 else "on the other side of 0:"
        return f"did **not** hold ({where} {sum(against)} of {of}{_named(known[against])})"
    if not sides or len(sides) < len(rows):
        return "not decided (too few seeds)"
    if wanted == 0:
        return "not refuted (no difference shown)"
    if still := sides.count(0):
        is_open = [one == 0 for one in sides]
        return f"not decided (0 lies within {still} of {of}{_named(known[is_open])})"
    return "held"


def _named(rows: pd.DataFrame, most: int = 2) -> str:
    """The differences themselves, where they are few."""
    if len(rows) > most:
        return ""
    said = (
        f"{row.part}, {row.kind} {signed_between(row.mean, row.low, row.high)}"
        for row in rows.itertuples()
    )
    return f": {'; '.join(said)}"
