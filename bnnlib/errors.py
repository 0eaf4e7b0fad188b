"""The library's own errors: every bad input ends in one of these, with one clear sentence."""

import re

# How Horovod, and MPI under it, say that another rank has failed, whatever error carries the words.
_HOROVOD_SAYS = re.compile(r"Horovod has been shut down|MPI_\w+ failed, see MPI output for details")
# How Gloo, and the system under it, say that a connection to another rank is lost. Downloads and
# pipes break with the same words, so they count only in the errors of a Horovod operation.
_GLOO_SAYS = re.compile(
    r"Connection (?:closed|reset) by peer|Broken pipe|Connection (?:refused|timed out)"
    r"|Socket (?:unexpectedly )?closed|(?:Connect|Read|Write|Wait) timeout|Timed out waiting"
    r"|Application timeout caused pair closure|No route to host"
)
# TensorFlow's errors for the states in which a Horovod operation ends, and Horovod's own.
_OF_OPERATIONS = (
    *("HorovodInternalError", "UnknownError", "FailedPreconditionError", "AbortedError"),
    *("CancelledError", "InternalError", "UnavailableError", "DeadlineExceededError"),
)


def rank_lost(name: str, message: str) -> str:
    """The words in which an error on one rank says that another rank is gone: that one is to blame.

    Args:
        name: of the error's class, such as ``UnknownError``.
        message: of the error.

    Returns:
        The words; empty if the error is this rank's own.
    """
    match = _HOROVOD_SAYS.search(message)
    if match is None and name in _OF_OPERATIONS:
        match = _GLOO_SAYS.search(message)
    return match[0] if match else ""


def message_of(error: BaseException) -> str:
    """An error's message, or why it has none: the message may be a program's own, and fail."""
    try:
        return str(error)
    except Exception as problem:
        return f"(no message: its __str__ raised {type(problem).__name__})"


class BnnlibError(Exception):
    """Base of all errors that bnnlib raises on purpose."""


class ExperimentError(BnnlibError, ValueError):
    """A parameter of a run is unknown or has a value that it cannot have."""


class DataError(BnnlibError, ValueError):
    """A data set is missing, damaged or not what its name says."""


class MissingDataError(DataError):
    """A data set is in none of the places where it is looked for; another may do without it."""


class MetricsError(BnnlibError, ValueError):
    """Probabilities or labels that no metric can be computed from."""


class RecordError(BnnlibError, ValueError):
    """A run record is missing, damaged, or belongs to other parameters."""


class DistributedError(BnnlibError, RuntimeError):
    """Ranks cannot start, or no longer agree."""


class JoiningError(DistributedError):
    """This rank cannot join the others; nothing has been started."""


class OtherRankError(DistributedError):
    """Another rank has raised one of these errors, and has said so to this one."""


class SiteError(BnnlibError, RuntimeError):
    """A machine's launch settings or its queue cannot be used."""
