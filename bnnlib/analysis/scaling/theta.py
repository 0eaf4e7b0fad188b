"""The original study's published speed-ups on Theta, and the cost model held against them."""

from __future__ import annotations

import math

import pandas as pd

from bnnlib.analysis.scaling.cost_model import ARIES, allreduce

# The original study on Theta, read by eye from its README's figures: seconds on one node, and
# speed-up.
THETA = pd.DataFrame(
    [
        ("BNN", 1, 1.0),
        ("BNN", 2, 1.8),
        ("BNN", 4, 3.3),
        ("BNN", 6, 4.7),
        ("BNN", 8, 6.1),
        ("CNN", 1, 1.0),
        ("CNN", 2, 1.8),
        ("CNN", 4, 3.5),
        ("CNN", 6, 5.1),
        ("CNN", 8, 6.6),
    ],
    columns=["network", "nodes", "speedup"],
)
# Its logs: BNN_conv_flip, 128 images a rank, 1690 images/s on one rank.
THETA_BATCH, THETA_IMAGES_PER_SECOND = 128, 1690.0


# What a rank of BNN_conv_flip and of CNN_conv gives to the average each step, in bytes.
THETA_BYTES = {"BNN": 514_864, "CNN": 508_464}


def theta() -> pd.DataFrame:
    """The cost model held against the original study's points.

    Returns:
        A row a network and number of nodes: ``speedup`` published; ``model``, what α-β on Aries
        says from one node's time alone; ``extra_ms``, what each step takes beyond the model;
        ``refined``, with a time for each doubling of the nodes, fitted to the point of two nodes
        only, so that the points of 4, 6 and 8 nodes test it; and both errors, relative.
    """
    rows = []
    for name, selected in THETA.groupby("network", sort=False):
        # The CNN's own rate was not logged; its time on one node was 2365 s, the BNN's 2275 s.
        alone = THETA_BATCH / THETA_IMAGES_PER_SECOND * {"BNN": 1.0, "CNN": 2365 / 2275}[str(name)]
        two = float(selected[selected.nodes == 2].speedup.iloc[0])
        doubling = alone * (2 / two - 1) - allreduce(THETA_BYTES[str(name)], 2, ARIES)
        for row in selected[selected.nodes > 1].itertuples():
            modelled = alone + allreduce(THETA_BYTES[str(name)], row.nodes, ARIES)
            refined = modelled + doubling * math.log2(row.nodes)
            rows.append(
                {
                    "network": name,
                    "nodes": row.nodes,
                    "speedup": row.speedup,
                    "model": row.nodes * alone / modelled,
                    "refined": row.nodes * alone / refined,
                    "extra_ms": 1e3 * (alone * row.nodes / row.speedup - modelled),
                    "doubling_ms": 1e3 * doubling,
                }
            )
    table = pd.DataFrame(rows)
    table["error"] = table.model / table.speedup - 1
    table["refined_error"] = table.refined / table.speedup - 1
    return table


def theta_waiting(table: pd.DataFrame) -> float:
    """The share of a rank's computing that each doubling of the nodes adds.

    Args:
        table: of :func:`theta`; its BNN on two nodes is used.
    """
    bnn = table[table.network == "BNN"].iloc[0]
    return float(bnn.doubling_ms / 1e3 / (THETA_BATCH / THETA_IMAGES_PER_SECOND))
