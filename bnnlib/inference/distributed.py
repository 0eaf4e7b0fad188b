"""Everything that touches Horovod: start, threads and device, broadcast, average, agreement, abort.

A run alone is a run of one rank: the same calls, without communication. It needs no Horovod, which
is imported only where a launcher has started several ranks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import math
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np
import tensorflow as tf

from bnnlib import launcher, process
from bnnlib.errors import BnnlibError, DistributedError, OtherRankError, message_of, rank_lost
from bnnlib.inference import cores, devices, joining
from bnnlib.record.stopping import Stopped
from bnnlib.session import Session

Value = TypeVar("Value")
Tensor = Any

logger = logging.getLogger(__name__)

# The lowest priority. Horovod's background thread busy-waits under MPICH and would take the core
# from the computation where ranks fill all cores (measured: CNN_conv at 2 ranks on 2 cores 12-14
# ms a step, 7 ms so).
BACKGROUND_NICE = 19


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process' place among the ranks of the run.

    Attributes:
        rank: 0 to size - 1.
        size: number of ranks.
        local_rank: place among the ranks of this host.
        local_size: ranks on this host.
        threads: TensorFlow threads inside an op.
        hosts: names, in order of their first rank.
        cores: that the ranks of a host may use together, on the host with the fewest. Where a
            host's ranks times `threads` are more, ranks share cores, and their times say nothing of
            scaling.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    threads: int = 1
    hosts: tuple[str, ...] = ()
    cores: int = 1

    def agree(self, action: Callable[[], Value]) -> Value:
        """Does `action` here; an error of any rank is raised on all, see :func:`agree`."""
        return agree(action)

    def gather(self, value: Value) -> list[Value]:
        """Every rank's `value`, in order of rank, on every rank; see :func:`gather`."""
        return gather(value)

    def refuse_difference(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Raises an error where ranks hold different arrays; see :func:`refuse_difference`."""
        refuse_difference(arrays)

    def start_timeline(self, path: str) -> None:
        """Lets Horovod write its timeline to `path`; see :func:`start_timeline`."""
        start_timeline(path)

    def stop_timeline(self) -> None:
        """Ends Horovod's timeline; see :func:`stop_timeline`."""
        stop_timeline()

    def build_info(self) -> dict[str, Any]:
        """What Horovod was built with, for the record; see :func:`build_info`."""
        return build_info()


def init(
    session: Session, threads: int = 0, inter_threads: int = 1, with_horovod: bool = False
) -> Ranks:
    """Joins the other ranks; call it before any tensor is made.

    Args:
        session: of this process, whose clock notes the end of the imports and of Horovod's start.
        threads: TensorFlow threads inside an op; 0: this rank's share of the cores that the ranks
            of its host may use.
        inter_threads: TensorFlow threads between ops.
        with_horovod: whether a rank alone starts Horovod too, which it has no need of.

    Returns:
        This process' place.

    Raises:
        DistributedError: the process cannot join its launcher's ranks, Horovod is missing where
            there are several, or TensorFlow already runs with another number of threads.
        SiteError: the job script gives this rank a GPU, and TensorFlow sees none.
    """
    session.clock.reached("imports")
    joining.refuse_other_count()
    hvd, background = None, set[int]()
    # `horovodrun --min-np` may give a rank alone others later, and asks Horovod for a sign of it.
    if with_horovod or launcher.size() > 1 or launcher.name() == "horovodrun":
        hvd, background = joining.start_horovod()
    of_this_rank = cores.of_this_process()
    own_threads = threads or cores.threads_of(of_this_rank, cores.of_local_ranks())
    _set_threads(own_threads, inter_threads, keep_running=threads == 0 and launcher.size() == 1)
    agree(lambda: devices.use_own_gpu(hvd.local_rank() if hvd else 0))
    allowed: dict[str, set[int]] = {}
    for host, of_rank in gather((socket.gethostname(), of_this_rank)):
        allowed.setdefault(host, set()).update(of_rank)
    ranks = Ranks(
        rank=hvd.rank() if hvd else 0,
        size=hvd.size() if hvd else 1,
        local_rank=hvd.local_rank() if hvd else 0,
        local_size=hvd.local_size() if hvd else 1,
        threads=own_threads,
        hosts=tuple(allowed),
        cores=min(map(len, allowed.values())),
    )
    if ranks.size > 1 and ranks.local_size * own_threads >= len(allowed[socket.gethostname()]):
        for thread_id in background:
            os.setpriority(os.PRIO_PROCESS, thread_id, BACKGROUND_NICE)
    session.clock.reached("horovod")
    return ranks


def set_threads() -> None:
    """Gives TensorFlow the threads that :func:`init` gives it, unless it runs already.

    So a process may predict first and train afterwards.
    """
    with contextlib.suppress(RuntimeError):
        threads = cores.threads_of(cores.of_this_process(), cores.of_local_ranks())
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def _others() -> Any:
    """Horovod, where this rank has others to talk with; None for a rank alone.

    Raises:
        DistributedError: the launcher has started others, and this rank has not joined them or has
            left them.
    """
    hvd = process.horovod()
    if hvd is None and launcher.size() > 1:
        raise DistributedError(
            f"this rank is one of {launcher.size()} and talks with no other: "
            "bnnlib.inference.distributed.init joins them, and what it joins may have been shut "
            "down since"
        )
    return hvd if hvd is not None and hvd.size() > 1 else None


def build_info() -> dict[str, Any]:
    """What Horovod was built with and what it uses in this run, for the record; {} without it."""
    hvd = process.horovod()
    if hvd is None:
        return {}
    return {
        "mpi_built": bool(hvd.mpi_built()),
        "gloo_built": bool(hvd.gloo_built()),
        "nccl_built": bool(hvd.nccl_built()),
        "controller": "mpi" if hvd.mpi_enabled() else "gloo",
    }


def broadcast(variables: Iterable[tf.Variable], name: str) -> None:
    """Sets `variables` on all ranks to rank 0's values."""
    if hvd := _others():
        for index, variable in enumerate(variables):
            variable.assign(hvd.broadcast(variable, root_rank=0, name=f"{name}.{index}"))


def average(tensor: Tensor, name: str, compression: str = "none") -> Tensor:
    """The mean over ranks of a tensor of any shape; inside a graph or outside.

    Args:
        tensor: of each rank.
        name: the same on all ranks.
        compression: ``none``, or ``fp16`` to send half the bytes: 11 significant bits, entries
            above 65504 become infinite and below 6e-8 zero (Horovod's own, without a loss scale).
    """
    hvd = process.horovod() or _others()
    if hvd is None:
        return tf.identity(tensor)
    packing = {"none": hvd.Compression.none, "fp16": hvd.Compression.fp16}[compression]
    return hvd.allreduce(tensor, op=hvd.Average, name=name, compression=packing)


def total(array: np.ndarray, name: str) -> np.ndarray:
    """The sum over ranks of an array of any shape, in its own precision; outside of a graph.

    Args:
        array: of each rank.
        name: the same on all ranks.
    """
    hvd = _others()
    if hvd is None:
        return array
    added: np.ndarray = hvd.allreduce(tf.constant(array), op=hvd.Sum, name=name).numpy()
    return added


class Message:
    """What each rank gives to the average over ranks in a step: gradients, and a few scalars.

    They travel in one tensor, since a step's cost is the negotiation of each tensor, not its bytes.
    Under fp16 the scalars travel in a tensor of their own, as float32: the sum over 1,000 ranks of
    an nll of 66 nats is beyond float16. A rank alone sends nothing.

    Args:
        size: number of ranks.
        compression: of the gradients, as for :func:`average`.
        num_scalars: how many scalars.
    """

    def __init__(self, size: int, compression: str, num_scalars: int) -> None:
        self.size, self.compression, self.num_scalars = size, compression, num_scalars

    def pack(self, gradients: Sequence[Tensor], scalars: Sequence[Tensor]) -> list[Tensor]:
        """The tensors that this rank sends."""
        if self.size == 1:
            return [*gradients, *scalars]
        flat = [tf.reshape(gradient, [-1]) for gradient in gradients]
        if self.compression == "none":
            return [tf.concat([*flat, scalars], 0)]
        return [tf.concat(flat, 0), tf.stack(scalars)]

    def average(self, sent: Sequence[Tensor]) -> list[Tensor]:
        """Averages the tensors over ranks."""
        if self.size == 1:
            return [tf.identity(tensor) for tensor in sent]
        gradients, *scalars = sent
        return [
            average(gradients, "gradients", self.compression),
            *(average(tensor, "scalars", "none") for tensor in scalars),
        ]

    def unpack(
        self, received: Sequence[Tensor], like: Sequence[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Averaged gradients of the shapes of `like`, and averaged scalars."""
        if self.size == 1:
            return list(received[: len(like)]), list(received[len(like) :])
        sizes = [math.prod(tensor.shape) for tensor in like]
        if len(received) == 1:
            *parts, scalars = tf.split(received[0], [*sizes, self.num_scalars])
        else:
            parts, scalars = tf.split(received[0], sizes), received[1]
        gradients = [
            tf.reshape(part, tensor.shape) for part, tensor in zip(parts, like, strict=True)
        ]
        return gradients, tf.unstack(scalars, self.num_scalars)

    def bytes(self, like: Iterable[Tensor]) -> int:
        """The bytes that a rank sends in a step: float32, or float16 gradients."""
        entry = 2 if self.compression == "fp16" else 4
        return entry * sum(math.prod(tensor.shape) for tensor in like) + 4 * self.num_scalars


def start_timeline(path: str) -> None:
    """Horovod writes the parts of every operation to `path` from now on; for one rank to call."""
    if hvd := _others():
        hvd.start_timeline(path)


def stop_timeline() -> None:
    """Ends what :func:`start_timeline` began; Horovod's thread may write a last moment later."""
    if hvd := _others():
        hvd.stop_timeline()


def gather(value: Value) -> list[Value]:
    """Every rank's `value`, in order of rank, on every rank."""
    hvd = _others()
    return [value] if hvd is None else list(hvd.allgather_object(value))


def agree(action: Callable[[], Value]) -> Value:
    """Runs `action` on every rank; if it fails on any, every rank raises, and none waits for ever.

    Returns:
        What `action` returned on this rank.

    Raises:
        BnnlibError: this rank's own error, or an OtherRankError that names the first rank that
            failed and its error.
    """
    value: Any = None
    error: BnnlibError | None = None
    try:
        value = action()
    except BnnlibError as raised:
        error = raised
    errors = gather(None if error is None else f"{type(error).__name__}: {message_of(error)}")
    if error is not None:
        raise error
    for rank, text in enumerate(errors):
        if text is not None:
            raise OtherRankError(f"rank {rank} failed: {text}")
    return value


def on_first_local_rank(action: Callable[[], Value], ranks: Ranks) -> Value:
    """Runs `action` on each node's first rank, then on the others: a download happens once."""
    if ranks.size == 1:
        return action()
    first: Value | None = agree(lambda: action() if ranks.local_rank == 0 else None)
    others: Value | None = agree(lambda: action() if ranks.local_rank != 0 else None)
    return first if ranks.local_rank == 0 else others  # type: ignore[return-value]


def refuse_difference(arrays: Mapping[str, np.ndarray]) -> None:
    """Holds arrays that must be the same on all ranks equal bit by bit; all ranks must call.

    Raises:
        DistributedError: on every rank, with the arrays and the ranks that differ from rank 0.
    """
    digests = {name: hashlib.sha256(value.tobytes()).hexdigest() for name, value in arrays.items()}
    first, *others = gather(digests)
    different = [
        f"{name} (on rank {', '.join(map(str, where))})"
        for name in first
        if (
            where := [
                rank for rank, other in enumerate(others, 1) if other.get(name) != first[name]
            ]
        )
    ]
    if different:
        raise DistributedError(
            f"weights or optimizer state differ from rank 0's: {', '.join(different)}. Memory or "
            "network failed, or the nodes run different software; start the same command again "
            "to go on from the last checkpoint, on other nodes if it happens again"
        )


def stop_if_asked(ranks: Ranks, session: Session) -> None:
    """Ends the run on every rank if any was asked to stop; all ranks must call it together.

    Raises:
        Stopped: on every rank alike. What is under way is lost, what was saved is not.
    """
    reason = session.requests.reason
    reasons = gather(reason) if ranks.size > 1 else [reason]
    for reason in reasons:
        if reason:
            raise Stopped(f"{reason}; the same command started again goes on")


def loss_of_others(error: BaseException) -> str:
    """Finds the words in an error that say that another rank is gone; empty if there are none.

    Only errors of a Horovod operation count: an error into which other code wraps one is an error
    of this rank.
    """
    of_horovod = getattr(sys.modules.get("horovod.common.exceptions"), "HorovodInternalError", ())
    if not isinstance(error, (tf.errors.OpError, of_horovod)):
        return ""
    return rank_lost(type(error).__name__, str(error))


def leave_together(exit_code: int) -> NoReturn:
    """Ends this rank once all ranks have come here; for an end that is no failure.

    A launcher may end all ranks as soon as the first one has left with a status that is not zero.
    """
    if hvd := process.horovod():
        gather(None)
        hvd.shutdown()
    process.leave(exit_code)


def _set_threads(threads: int, inter_threads: int, keep_running: bool) -> None:
    """Sets TensorFlow's threads, which it takes before it runs.

    With `keep_running` a TensorFlow that runs with its own choice, which is all cores, keeps it.
    """
    wanted = (threads, inter_threads)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(inter_threads)
    except RuntimeError:  # TensorFlow runs: the notebook's cell is run again in a live kernel
        current = (
            tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads(),
        )
        if keep_running and current == (0, 0):
            logger.warning(
                "TensorFlow was used before in this process and keeps its own threads, one a core, "
                "between ops too"
            )
        elif current != wanted:
            raise DistributedError(
                f"threads, inter_threads = {wanted}: TensorFlow already runs with {current} in "
                "this process; restart the kernel"
            ) from None
