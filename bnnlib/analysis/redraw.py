"""Draws kept figures again from their tables, where the code that draws has changed, not the runs.

``python -m bnnlib.analysis.redraw figures/scaling`` draws every figure in a folder whose table has
the name of one that a notebook keeps there. The table stays as it is, and the origin then says from
what, and by which commit, the picture was drawn again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from bnnlib.analysis import figures, gallery
from bnnlib.analysis.scaling import figures as scaling
from bnnlib.analysis.scaling import simulated
from bnnlib.errors import RecordError
from bnnlib.record import provenance

# The figures of 02_calibration, 03_scaling and 11_simulation by the name that they are kept under.
DRAWN: dict[str, Callable[[pd.DataFrame], Figure]] = {
    "accuracy_against_nll": figures.accuracy_against_nll,
    "reliability": figures.reliability_diagrams,
    "entropy_right_wrong": figures.entropy_of_right_and_wrong,
    "risk_coverage": figures.risk_against_coverage,
    "accuracy_and_ece_against_severity": figures.against_severity,
    "corruptions": figures.corruptions,
    "ood_histograms": figures.ood_histograms,
    "ood_roc": figures.roc_curves,
    "epistemic_against_aleatoric": figures.epistemic_against_aleatoric,
    "draws": figures.convergence_with_draws,
    "ladder": scaling.ladder,
    "efficiency": scaling.efficiency,
    "predicted_steps": scaling.predicted_steps,
    "breakdown": scaling.breakdown,
    "time_to_accuracy": scaling.time_to_accuracy,
    "theta": scaling.theta,
    "predictions": scaling.predictions,
    "calibration_against_ranks": scaling.calibration,
    "spread": simulated.spread,
    "simulated": simulated.step_times,
}


def redraw(directory: str | Path) -> list[Path]:
    """Draws again what is kept in a folder.

    Returns:
        The pictures drawn.

    Raises:
        RecordError: none of the folder's tables is one of a figure of :data:`DRAWN`, a figure's
            origin cannot be read, or a file cannot be written.
    """
    tables = [path for path in sorted(Path(directory).glob("*.csv")) if path.stem in DRAWN]
    if not tables:
        raise RecordError(
            f"{directory}: no table of a figure to draw again; expected one of "
            f"{', '.join(f'{name}.csv' for name in DRAWN)}"
        )
    code = provenance.collect()
    pictures = []
    for path in tables:
        try:
            origin = json.loads(path.with_suffix(".json").read_text())
        except (OSError, ValueError) as error:
            raise RecordError(
                f"{path.with_suffix('.json')}: no readable origin: {error}"
            ) from error
        figure = DRAWN[path.stem](pd.read_csv(path))
        pictures.append(gallery.save_picture(figure, path.with_suffix(".png")))
        origin["redrawn"] = {"from": path.name} | {key: code[key] for key in ("commit", "clean")}
        gallery.save_origin(origin, path.with_suffix(".json"))
    return pictures


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="+", type=Path, help="such as figures/scaling")
    for directory in parser.parse_args().directory:
        print(*redraw(directory), sep="\n")


if __name__ == "__main__":
    main()
