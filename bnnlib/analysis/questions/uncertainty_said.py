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
    longer,
    longest,
    trained,
)
from bnnlib.analysis.words import (
    between,
    counted,
    number,
    percent,
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
        return "No shorter training on all images has been measured yet."
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
    words = {1: "greater, as theory says", -1: "smaller", 0: "no difference shown"}
    lines = []
    for method, rows in table.groupby("method", sort=False):
        of = means[means.method == method].set_index("kind")["mean"]
        said = [
            f"{row.kind} {percent(of[row.kind])}, a difference of "
            f"{signed_between(row.mean, row.low, row.high)} ({_verdict(row, words)})"
            for row in rows.itertuples()
        ]
        lines.append(
            f"- **{NAMES[str(method)]}** ({_pairs(rows)}): ambiguous {percent(of['ambiguous'])}; "
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
            first, most = (between(mean, low, high, 2) for mean, low, high in at)
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
            f"{between(*within(Interval(row.mean, row.low, row.high)), 2)}"
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
    return (
        f"The page makes {counted(count, 'comparison')}; if nothing differed, "
        f"{number(0.05 * count, 1)} of their intervals would exclude 0 by chance."
    )


def told_expected(measured: pd.DataFrame) -> str:
    """Which of the four expectations held, a line each, of the first mean-field network."""
    found = differences(measured)
    own = found[found.method == METHODS[0]].set_index(["what", "part", "kind"])
    sizes, shares = f"{FEW} less {ALL:,} images", "less ambiguous"

    def sides(what: str, part: str, kinds: tuple[str, ...]) -> list[int | None]:
        keys = [(what, part, kind) for kind in kinds]
        rows = [own.loc[key] if key in own.index else None for key in keys]
        return [_side(row) for row in rows]

    clean = [*sides(sizes, "epistemic", ("clean",)), *sides(sizes, "aleatoric", ("clean",))]
    more = None
    if None not in clean:
        parts = (own.loc[(sizes, part, "clean")]["mean"] for part in ("aleatoric", "epistemic"))
        more = 1 if next(parts) > next(parts) else 0
    ensemble = found[(found.method == ENSEMBLE) & (found.part == "epistemic")]
    falls = [_side(row) for _, row in ensemble[ensemble.kind == "clean"].iterrows()] or [None]
    beside = beside_ensemble(measured)
    less = [_side(row) for _, row in beside[beside.method == METHODS[0]].iterrows()] or [None]
    expected = {
        "On clean images both parts fall with data, the aleatoric one by more": _all(
            [*clean, more], 1
        ),
        "On unknown images the epistemic part is smaller after few images": _all(
            sides(sizes, "epistemic", UNKNOWN), -1
        ),
        "The epistemic share does not tell ambiguous from unknown images": _all(
            sides(shares, "share", UNKNOWN), 0
        ),
        "The ensemble's epistemic part falls with data on clean images and is smaller than the "
        "mean-field network's everywhere": _all([*falls, *less], 1),
    }
    words = {True: "held", False: "did **not** hold", None: "not decided (too few seeds)"}
    return "\n".join(
        f"{place}. {what}: {words[held]}." for place, (what, held) in enumerate(expected.items(), 1)
    )


def _side(row: pd.Series | None) -> int | None:
    """Which side of 0 a difference lies on; None where its interval is not known."""
    return None if row is None or pd.isna(row.low) else side(row.low, row.high)


def _all(sides: list[int | None], wanted: int) -> bool | None:
    """Whether all lie on one side; None where some are not known and no other lies elsewhere."""
    if any(one not in (None, wanted) for one in sides):
        return False
    return None if None in sides else True
