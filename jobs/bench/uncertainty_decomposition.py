"""What networks are unsure of, epistemic and aleatoric: uncertainties.csv.

    python -m jobs.bench.uncertainty_decomposition runs/uncertainty_decomposition \
        figures/uncertainty_decomposition

loads every finished run of jobs/studies/uncertainty_decomposition.yaml, lets it predict clean,
rotated, mixed and unknown images, and splits the entropy of each prediction (Depeweg et al. 2018,
equation 2). Deterministic runs count as the members of ensembles: five that share their images. A
network or ensemble appends its rows when it is done, one a set of images; what is there already is
passed over, so a measurement that was stopped goes on. `cpu_seconds` is what each took.

`entropy`, `aleatoric` and `epistemic` are means over the images, in nats; `auroc_aleatoric` and
`auroc_epistemic` say how well each part by itself tells the set from the clean images.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bnnlib import data, metrics
from bnnlib.data import Dataset
from bnnlib.errors import BnnlibError
from bnnlib.experiment import Experiment
from bnnlib.inference import distributed
from bnnlib.inference.loading import load_run
from bnnlib.launch.here import forget_graphs
from bnnlib.names import twin_of
from bnnlib.record.schema import read_record
from jobs.bench import common

DRAWS, MEMBERS = 50, 5
CLEAN_IMAGES, IMAGES = 1000, 500
DEGREES = tuple(range(0, 181, 15))
SHARES = tuple(tenth / 10 for tenth in range(11))  # of the second image of a mixture
PAIR_SEED = 0x317  # of the mixtures' second images
KEYS = ("method", "steps", "train_images", "seed", "kind", "value")
COLUMNS = (
    *KEYS, "images", "draws", "accuracy", "entropy", "aleatoric", "epistemic", "auroc_aleatoric",
    "auroc_epistemic", "cpu_seconds",
)  # fmt: skip


class Judged(NamedTuple):
    """A set of images that networks are asked about.

    Attributes:
        kind: clean, rotated, mixed, near or far.
        value: degrees of a rotation, share of a mixture's second image, or the set's name.
        images: as stored, ``(num_images, height, width, channels)``.
        labels: ``(num_images,)``, None where the images have none.
    """

    kind: str
    value: str
    images: np.ndarray
    labels: np.ndarray | None


class Network(NamedTuple):
    """One mean-field network, or one ensemble of deterministic ones.

    Attributes:
        method: the network's name, or ``ensemble``.
        steps: of its training.
        train_images: that it was trained on.
        seed: of a network; of an ensemble, that of its choice of images.
        members: the runs' folders.
    """

    method: str
    steps: int
    train_images: int
    seed: int
    members: tuple[Path, ...]


def mixtures(
    images: np.ndarray, labels: np.ndarray, shares: Sequence[float] = SHARES
) -> dict[float, np.ndarray]:
    """Each image mixed with one of another class: (1 − share) · own + share · other, pixelwise.

    Args:
        images: uint8 ``(num_images, height, width, channels)``, of two classes or more.
        labels: ``(num_images,)``.
        shares: of the other image, the same one for all shares.

    Returns:
        By share, uint8 images as many as there are, rounded.
    """
    rng = np.random.default_rng(PAIR_SEED)
    others = np.array([rng.choice(np.flatnonzero(labels != label)) for label in labels])
    own, other = images.astype(np.float64), images[others].astype(np.float64)
    return {share: np.rint((1 - share) * own + share * other).astype(np.uint8) for share in shares}


def sets(dataset: Dataset, outside: Sequence[str] = ("near", "far")) -> list[Judged]:
    """All sets of images, the clean ones first; the same whatever network is asked."""
    clean = data.evaluation_set(dataset, "test", CLEAN_IMAGES)
    part = data.evaluation_set(dataset, "test", IMAGES)
    assert clean.labels is not None
    assert part.labels is not None
    few = dataclasses.replace(dataset, x_test=part.images, y_test=part.labels)
    turned = [data.evaluation_set(few, f"rotate-{degrees}") for degrees in DEGREES]
    return [
        Judged("clean", "test", clean.images, clean.labels),
        *(
            Judged("rotated", str(degrees), one.images, one.labels)
            for degrees, one in zip(DEGREES, turned, strict=True)
        ),
        *(
            Judged("mixed", str(share), images, None)
            for share, images in mixtures(part.images, part.labels).items()
        ),
        *(
            Judged(group, name, data.subset(one, IMAGES).images, None)
            for name, group, one in data.ood_sets(dataset, outside)
        ),
    ]


def networks(runs: Path) -> list[Network]:
    """The networks and whole ensembles of the finished runs below a folder, by seed and size."""
    found: list[Network] = []
    members: dict[tuple[int, int, int], list[Path]] = {}
    for file in sorted(runs.rglob("run.json")):
        record = read_record(file.parent)
        if record["status"] != "finished":
            continue
        experiment = Experiment.from_mapping(record["parameters"])
        steps = int(record["metrics"]["steps_done"])
        images = record["data"]["arrays"]["x_train"]["shape"][0]
        if twin_of(experiment.model):
            one = Network(experiment.model, steps, images, experiment.seed, (file.parent,))
            found.append(one)
        else:
            key = (steps, images, experiment.train_images_seed)
            members.setdefault(key, []).append(file.parent)
    found += [
        Network("ensemble", *key, tuple(folders))
        for key, folders in members.items()
        if len(folders) == MEMBERS
    ]
    return sorted(found, key=lambda one: (one.seed, one.steps, one.method, one.train_images))


def predict(network: Network, judged: Sequence[Judged]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The mean probabilities and the mean entropies of what is drawn, of each set.

    A draw of an ensemble is a member.
    """
    sums: list[list[np.ndarray]] = []
    for folder in network.members:
        run = load_run(folder)
        made = [run.predict(one.images, draws=DRAWS) for one in judged]
        sums.append([np.column_stack([one.mean_probs, one.expected_entropy]) for one in made])
        forget_graphs()
    means = [np.mean(np.array(of_set, np.float64), axis=0) for of_set in zip(*sums, strict=True)]
    return [(one[:, :-1], one[:, -1]) for one in means]


def rows_of(network: Network, judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Measures one network: a row a set."""
    started = time.process_time()
    rows, scores = [], []
    for one, (probs, expected) in zip(judged, predict(network, judged), strict=True):
        epistemic = metrics.mutual_information(probs, expected)
        scores.append((expected, epistemic))
        row: dict[str, Any] = dict(zip(KEYS[:4], network[:4], strict=True))
        row |= {"kind": one.kind, "value": one.value, "images": len(one.images)}
        row["draws"] = MEMBERS if network.method == "ensemble" else DRAWS
        accuracy = None if one.labels is None else metrics.accuracy(probs, one.labels)
        row["accuracy"] = "" if accuracy is None else _short(accuracy)
        row["entropy"] = _short(metrics.predictive_entropy(probs).mean())
        row |= {"aleatoric": _short(expected.mean()), "epistemic": _short(epistemic.mean())}
        for place, part in enumerate(("aleatoric", "epistemic")):
            value = metrics.auroc(scores[0][place], scores[-1][place])
            row[f"auroc_{part}"] = "" if one.kind == "clean" else _short(value)
        rows.append(row)
    seconds = round(time.process_time() - started, 1)
    return [row | {"cpu_seconds": seconds} for row in rows]


def _short(value: float) -> str:
    return f"{value:.6g}"


def measure(runs: Path, path: Path, judged: Sequence[Judged] | None = None) -> Iterator[str]:
    """Appends the rows of all networks that the table lacks; says of each what it found.

    Args:
        runs: folder of the runs.
        path: of the table.
        judged: the sets of images; those of MNIST if not given.
    """
    done = common.rows_there(path, KEYS[:4])
    for network in networks(runs):
        if tuple(map(str, network[:4])) in done:
            continue
        judged = judged or sets(data.load("mnist"))
        rows = rows_of(network, judged)
        common.append_rows(path, rows, COLUMNS)
        yield f"{' '.join(map(str, network[:4]))}: {rows[0]['cpu_seconds']} CPU seconds"


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("runs", type=Path, help="of jobs/studies/uncertainty_decomposition.yaml")
    parser.add_argument("figures", type=Path, help="folder of uncertainties.csv")
    arguments = parser.parse_args()
    distributed.set_threads()
    arguments.figures.mkdir(parents=True, exist_ok=True)
    path = arguments.figures / "uncertainties.csv"
    try:
        common.write_origin(path.with_suffix(".json"), runs=str(arguments.runs))
        for told in measure(arguments.runs, path):
            print(told, flush=True)
    except BnnlibError as error:
        print(f"uncertainty_decomposition: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
