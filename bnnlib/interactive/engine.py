"""One rank of an interactive cluster: ``python -m bnnlib.interactive.engine``.

It differs from ipyparallel's own in two things. Its number is its MPI rank, read from the
launcher's environment, so that mpi4py is not needed and MPI starts only with the cell that starts
Horovod. And a cell that fails on one rank fails on all: the others would wait for it for ever.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from bnnlib import launcher, process


def prepare(fail_together: bool) -> dict[str, Any]:
    """Prepares this rank; called once on each IPython engine, before anything else runs there.

    Args:
        fail_together: a cell that ends in an error shuts Horovod down, so that every operation in
            which other ranks wait for this one fails there, too.

    Returns:
        This rank's ``rank`` and ``size`` (as the launcher has them), ``host``, ``pid``, and the
        ``namespace`` in which that is valid.
    """
    if fail_together:
        _shell().events.register("post_run_cell", _fail_together)
    return {
        "rank": launcher.rank(),
        "size": launcher.size(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "namespace": process.namespace(),
    }


def value(expression: str) -> Any:
    """The value of an expression among the variables of this IPython engine."""
    return _shell().ev(expression)


def _shell() -> Any:
    from IPython.core.getipython import get_ipython

    return get_ipython()


def _fail_together(result: Any) -> None:
    if not result.success:
        process.shut_horovod_down()


def main() -> None:
    """Starts the IPython engine; its controller is the one of ``IPP_CONNECTION_INFO``."""
    from ipyparallel.engine.app import IPEngine

    IPEngine.launch_instance(
        [
            f"--IPEngine.id={launcher.rank()}",
            # A nanny is a second process a rank, and on a Cray no process may be started by one.
            "--IPEngine.enable_nanny=False",
            *sys.argv[1:],
        ]
    )


if __name__ == "__main__":
    main()
