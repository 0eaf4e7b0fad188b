"""What the network of a run on the disk predicts of the images in a file of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from bnnlib import launcher, metrics
from bnnlib.data import npz
from bnnlib.errors import DataError, DistributedError

SUFFIXES = (".npz", ".csv")
How = Literal["draws", "mean", "probit"]


def predict(
    run: str | Path,
    images: str | Path,
    out: str | Path,
    draws: int | None = None,
    seed: int | None = None,
    predict_with: How | None = None,
    any_range: bool = False,
) -> str:
    """Predicts the images in a file, writes the predictions, and says what was done.

    Args:
        run: the run's directory.
        images: a file of :func:`bnnlib.data.npz.read_images`.
        out: the file to write, .npz or .csv, of :class:`bnnlib.inference.Predicted`.
        draws: of the weights; as many as the run was evaluated with if not given.
        seed: of the draws; the run's own if not given.
        predict_with: ``draws``, ``mean`` or ``probit``; the run's own if not given.
        any_range: whether pixels outside of the training images' range are taken.

    Returns:
        One sentence: number of images, what predicted them, mean total entropy, and the file.

    Raises:
        BnnlibError: the run or a file cannot be read or written, the images are not of the kind
            that the network was trained on, or ranks were started: one process predicts.
    """
    images, out = npz.path_of(str(images)), npz.path_of(str(out))
    if launcher.size() > 1:
        raise DistributedError(
            f"{launcher.size()} ranks: one process predicts; start it without a launcher in front"
        )
    if out.suffix.lower() not in SUFFIXES:
        raise DataError(f"{out}: expected a file that ends in {' or '.join(SUFFIXES)}")
    if out.resolve() == images.resolve():
        raise DataError(f"{out}: holds the images and would be replaced; give another --out")
    asked = npz.read_images(images)

    from bnnlib.inference import load_run  # seconds of TensorFlow, once the files are right

    loaded = load_run(run)
    experiment = loaded.experiment
    draws = experiment.test_draws if draws is None else draws
    how = cast(How, predict_with or experiment.predict_with)
    made = loaded.predict(asked, draws=draws, seed=seed, predict_with=how, any_range=any_range)
    if out.suffix.lower() == ".csv":
        made.to_csv(out)
    else:
        made.to_npz(out)
    entropy = metrics.predictive_entropy(made.mean_probs).mean()
    by = {"draws": f"{draws} draws", "mean": "the posterior's mean", "probit": "probit"}
    source = by[how] if loaded.network.is_stochastic else "a deterministic network"
    return (
        f"{len(made.mean_probs)} images predicted by {experiment.model}, {source}: mean total "
        f"entropy {entropy:.4f} nats; written: {out}"
    )
