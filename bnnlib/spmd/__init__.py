"""Runs one notebook on many ranks: papermill's engine `spmd` and its output handler `rank0:`.

    mpiexec -n 2 papermill train.ipynb rank0:runs/demo/train.ipynb --engine spmd -p model CNN_FC

Every rank runs the same cells ("single program, multiple data"), each in its own process:
papermill's own engine starts a kernel process for a notebook, and a kernel that MPICH did not start
cannot join MPI. Rank 0 shows the output as it comes and writes the notebook, with the outputs that
a kernel would have left there. An error on any rank ends all of them: the rank that fails leaves a
small file beside the notebook, rank 0 puts its traceback into the notebook, and the launcher sees
an exit status that is not zero.

What differs from a kernel: widgets have no front end, so `tqdm.auto` shows its text bar; text that
a carriage return has overwritten is dropped; what C++ code or a child process writes to the
process's own stdout and stderr goes to the terminal, not into the notebook; `input()` finds an
empty stdin.

With papermill's own engine the cells run in a kernel; `rank0:` tells it the notebook's folder, too.
A start that either engine refuses leaves nothing behind. One that a cell refuses, before the first
step, leaves no record either, but the executed notebook, which holds the error: it is papermill's
output, and the next start replaces it.

papermill imports this package while papermill itself is still being imported, so nothing of
papermill may be imported at the top of its modules.
"""

import contextlib
import logging

# tqdm.auto decides once, when it is imported, and takes ipykernel's shell for a front end. Before
# that it draws bars of text, papermill's own and the cells', which the terminal shows too.
import tqdm.auto  # noqa: F401

# isort: split
from bnnlib import launcher
from bnnlib.errors import DistributedError
from bnnlib.process import abort
from bnnlib.spmd.engine import SpmdEngine
from bnnlib.spmd.failures import Failure
from bnnlib.spmd.kernel import KernelEngine
from bnnlib.spmd.parameters import unknown_parameters
from bnnlib.spmd.rank0 import Rank0Handler

__all__ = ["Failure", "KernelEngine", "Rank0Handler", "SpmdEngine", "abort", "unknown_parameters"]

# papermill says what it reads and writes on every rank; once is enough.
with contextlib.suppress(DistributedError):  # the run itself says that no rank is known
    if launcher.rank() > 0:
        logging.getLogger("papermill").setLevel(logging.WARNING)
