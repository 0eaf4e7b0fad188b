"""Whether a posterior has stopped moving, by the KL in the log lines of its training.

Mean-field inference is easily stopped before its variances have converged, and what such a run says
of calibration is said of the way there, not of the posterior (Entropy 23:1629, 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bnnlib.record.logs import StepLog

# The share of the training that is looked at, its last, and the change that counts as none.
LAST, LIMIT = 0.1, 0.02
# The share of the training that may lie after the line before: of a longer one the rule says
# nothing.
FARTHEST = 0.25


def convergence(lines: Sequence[StepLog]) -> dict[str, Any] | None:
    """Whether KL(q||p) has changed by less than 2 % over the last tenth of the training so far.

    The change is measured by the smaller of the KL now and the way that the KL has gone in all. A
    run that has hardly begun changes little in a tenth of its few steps, too, but much of what it
    has changed in all.

    A rate that falls to 0 (``cosine``) ends every change: there the rule says that the KL stands
    still, and only a longer run that ends at the same loss says that it stands at its optimum.

    Args:
        lines: of ``steps.jsonl``, of the whole run.

    Returns:
        `converged`, whether it has, None where that cannot be said: the KL never moved, or there is
        no line between the last quarter's start and the last tenth's; `kl` now and `kl_before`,
        nats, the latter of the last line of the first nine tenths, which ends at `step_before`;
        `way`, nats, that the KL has gone in all; `change`, the relative one, None as `converged`;
        and `limit`. None without a KL, as of a deterministic network.
    """
    if not lines or not any(line.kl for line in lines):
        return None
    last, kls = lines[-1], [float(line.kl) for line in lines]
    before = [line for line in lines if line.step <= (1 - LAST) * last.step]
    way = max(kls) - min(kls)
    scale = min(abs(last.kl), way)
    near = bool(before) and before[-1].step >= (1 - FARTHEST) * last.step
    change = abs(last.kl - before[-1].kl) / scale if near and scale > 0 else None
    return {
        "converged": None if change is None else change < LIMIT,
        "kl": last.kl,
        "kl_before": before[-1].kl if before else None,
        "step_before": before[-1].step if before else None,
        "way": way,
        "change": change,
        "limit": LIMIT,
    }


def sentence(found: dict[str, Any] | None) -> str:
    """What :func:`convergence` found, for a reader; empty where the rule does not apply."""
    if found is None:
        return ""
    if found["change"] is None:
        return (
            "Too few log lines, or none whose KL(q||p) differs, to say whether the posterior has "
            "converged."
        )
    way, kl = found["way"], abs(found["kl"])
    of = f"the way that it has gone ({way:,.0f} nats)" if way < kl else "the KL(q||p) now"
    verdict = "has" if found["converged"] else "has NOT"
    return (
        f"The posterior {verdict} converged: over the last {LAST:.0%} of the training KL(q||p) "
        f"went from {found['kl_before']:,.0f} to {found['kl']:,.0f} nats, which is "
        f"{found['change']:.1%} of {of} (limit {found['limit']:.0%})."
    )
