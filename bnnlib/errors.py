"""The library's own errors: every bad input ends in one of these, with one clear sentence."""

import re

# How Horovod and Gloo say on one rank that another is gone: the error there is the cause.
RANK_LOST = re.compile(
    r"Horovod has been shut down|Connection (?:closed|reset) by peer|Broken pipe"
)


class BnnlibError(Exception):
    """Base of all errors that bnnlib raises on purpose."""


class ExperimentError(BnnlibError, ValueError):
    """A parameter of a run is unknown or has a value that it cannot have."""


class DataError(BnnlibError, ValueError):
    """A data set is missing, damaged or not what its name says."""


class MetricsError(BnnlibError, ValueError):
    """Probabilities or labels that no metric can be computed from."""


class RecordError(BnnlibError, ValueError):
    """A run record is missing, damaged, or belongs to other parameters."""


class DistributedError(BnnlibError, RuntimeError):
    """Ranks cannot start, or no longer agree."""


class SiteError(BnnlibError, RuntimeError):
    """A machine's launch settings or its queue cannot be used."""
