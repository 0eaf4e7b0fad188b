"""What MNIST-C and CIFAR-10-C look like here, and how long a set takes to make.

    python -m jobs.bench.corruptions [--images 10000] [--out figures/corruptions]

writes a contact sheet of each, mnist_c.png and cifar10_c.png, from the images' own making whatever
files BNN_DATA has; seconds.csv, a row a set; and origin.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bnnlib import data
from bnnlib.data.corruptions import BENCHMARKS, SETS, corrupt
from jobs.bench.common import write_origin, write_table

# The first digits of 0 to 5, and one photograph.
DIGITS, PHOTOGRAPH = range(6), 1


def sheet(columns: dict[str, list[np.ndarray]], rows: list[str]) -> Figure:
    """Draws images in columns with titles, and a label a row."""
    figure = Figure(
        figsize=(0.62 * len(columns) + 0.4, 0.62 * len(rows) + 1.1), dpi=72, facecolor="0.8"
    )
    axes = figure.subplots(len(rows), len(columns), gridspec_kw={"wspace": 0.06, "hspace": 0.06})
    for column, (title, images) in enumerate(columns.items()):
        for row, image in enumerate(images):
            axis = axes[row, column]
            axis.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255)
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if column == 0:
                axis.set_ylabel(rows[row], fontsize=7)
        axes[0, column].set_title(title.replace("_", " "), fontsize=7, rotation=40, ha="left")
    figure.subplots_adjust(0.03, 0.01, 0.96, 1 - 0.85 / figure.get_size_inches()[1])
    return figure


def mnist_c() -> Figure:
    """A column a corruption, a row a digit."""
    mnist = data.load("mnist")
    chosen = [int(np.flatnonzero(mnist.y_test == digit)[0]) for digit in DIGITS]
    columns = {"test": [mnist.x_test[number] for number in chosen]}
    for name in data.GROUPS["mnist_c"]:
        columns[name.partition("/")[2]] = [
            corrupt(name, mnist.x_test[[number]], np.array([number]))[0] for number in chosen
        ]
    return sheet(columns, [str(digit) for digit in DIGITS])


def cifar10_c() -> Figure:
    """A column a corruption, a row a severity, of one photograph."""
    one = data.load("cifar10").x_test[PHOTOGRAPH : PHOTOGRAPH + 1]
    columns = {
        corruption: [
            one[0],
            *(
                corrupt(f"cifar10_c/{corruption}-{severity}", one, np.array([PHOTOGRAPH]))[0]
                for severity in range(1, 6)
            ),
        ]
        for corruption in BENCHMARKS["cifar10_c"].corruptions
    }
    return sheet(columns, ["test", *"12345"])


def seconds(images: int) -> list[dict[str, Any]]:
    """CPU seconds that each set takes, and how far its images are from the test images."""
    rows = []
    tests = {one.dataset: data.load(one.dataset).x_test for one in BENCHMARKS.values()}
    for name, (benchmark, _, _) in SETS.items():
        clean = tests[benchmark.dataset][:images]
        started = time.process_time()
        made = corrupt(name, clean)
        taken = time.process_time() - started
        distance = float(np.sqrt(np.mean((made / 255 - clean / 255) ** 2)))
        rows.append({"set": name, "images": len(clean), "cpu_seconds": round(taken, 2)})
        rows[-1]["rms_difference"] = round(distance, 4)
    return rows


def main() -> None:
    """Draws the sheets, measures, and writes both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--out", type=Path, default=Path("figures/corruptions"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, figure in (("mnist_c", mnist_c()), ("cifar10_c", cifar10_c())):
        figure.savefig(arguments.out / f"{name}.png", pil_kwargs={"optimize": True})
    write_table(arguments.out / "seconds.csv", seconds(arguments.images))
    write_origin(arguments.out / "origin.json")


if __name__ == "__main__":
    main()
