"""Horovod's launcher, with Gloo where nothing is chosen; installed as .venv/bin/horovodrun.

Built with MPI, Horovod's own ``horovodrun`` calls ``mpirun`` and refuses the MPICH of the package
index, whose ``--version`` does not say that it is MPICH. ``--mpi`` and ``--gloo`` still choose, and
``mpiexec`` starts MPI ranks without horovodrun.
"""

import sys

from horovod.runner.launch import run_commandline

if __name__ == "__main__":
    if not {"--gloo", "--mpi", "--jsrun"} & set(sys.argv):
        sys.argv.insert(1, "--gloo")
    sys.exit(run_commandline())
