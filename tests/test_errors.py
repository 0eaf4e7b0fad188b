"""Which errors on a rank blame another one, in the words of Horovod, Gloo, MPICH and Python."""

import pytest
import tensorflow as tf

from bnnlib.errors import rank_lost
from bnnlib.inference import distributed
from bnnlib.spmd import Failure

PAIR = "[/tmp/gloo/transport/tcp/pair.cc:598] "
LOST = {
    "Horovod has been shut down": "Horovod has been shut down. This was caused by an exception on",
    "Connection closed by peer": PAIR + "Connection closed by peer [127.0.0.1]:48232",
    "Connection reset by peer": PAIR + "Read error [127.0.0.1]:48232: Connection reset by peer",
    "Broken pipe": PAIR + "Write error [127.0.0.1]:48232: Broken pipe",
    "Connection timed out": PAIR + "Read error [10.0.0.2]:48232: Connection timed out",
    "Socket closed": PAIR + "Socket closed [127.0.0.1]:48232",
    "Timed out waiting": "[buffer.cc:81] Timed out waiting 30000ms for recv operation to complete",
    "MPI_Allreduce failed, see MPI output for details": (
        "MPI_Allreduce failed, see MPI output for details."
    ),
}


@pytest.mark.parametrize("words", LOST)
def test_a_rank_whose_average_broke_is_not_to_blame(words: str) -> None:
    error = tf.errors.UnknownError(None, None, LOST[words])
    assert rank_lost("UnknownError", LOST[words]) == words
    assert distributed.loss_of_others(error) == words
    assert Failure.here(0, "UnknownError", LOST[words], [], 0).is_consequence


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("BrokenPipeError", "[Errno 32] Broken pipe"),
        ("DataError", "mnist: could not be downloaded (Connection reset by peer)"),
        ("TimeoutError", "Read timeout"),
        ("UnknownError", "no kernel image is available"),
    ],
)
def test_a_pipe_or_a_download_that_breaks_is_the_ranks_own_error(name: str, message: str) -> None:
    assert rank_lost(name, message) == ""
    assert not Failure.here(0, name, message, [], 0).is_consequence
