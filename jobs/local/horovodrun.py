"""Horovod's launcher, with Gloo where nothing is chosen; installed as .venv/bin/horovodrun.

Built with MPI, Horovod's own ``horovodrun`` calls ``mpirun`` and refuses the MPICH of the package
index, whose ``--version`` does not say that it is MPICH. ``--mpi`` and ``--gloo`` still choose, and
``mpiexec`` starts MPI ranks without horovodrun.

Where Horovod's own always returns 1, this one returns the first failed rank's status: 75 says that
the run was stopped in good order and goes on when it is started again. SIGUSR1 does what SIGTERM
does, and both give the ranks the time to write their checkpoint.
"""

import os
import re
import signal
import sys

from horovod.runner.common.util import safe_shell_exec
from horovod.runner.launch import run_commandline

# Seconds from SIGTERM to SIGKILL, instead of 5. Here, and not below, since the process that
# Horovod starts beside each rank imports this file, too.
safe_shell_exec.GRACEFUL_TERMINATION_TIME_S = 30


def main() -> int:
    """The status of the first rank that failed, 0 if none did."""
    if not {"--gloo", "--mpi", "--jsrun"} & set(sys.argv):
        sys.argv.insert(1, "--gloo")
    signal.signal(signal.SIGUSR1, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    try:
        return run_commandline() or 0
    except RuntimeError as error:
        status = re.search(r"^Exit code: (\d+)$", str(error), re.MULTILINE)
        if status is None:
            raise
        print(error, file=sys.stderr)
        return int(status[1])


if __name__ == "__main__":
    sys.exit(main())
