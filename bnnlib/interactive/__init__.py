"""How does JupyterLab drive the ranks?

:mod:`~bnnlib.interactive.cluster` starts MPI ranks that a notebook sends its cells to, and
:mod:`~bnnlib.interactive.watching` shows a run's curves while they train it. Nothing is imported
here: the guard of :mod:`~bnnlib.interactive.reaper` is a small process and starts at once.

The IPython engines, the controller and the client are ipyparallel's. These parts are this
library's own, for these reasons:

- `engine`: ipyparallel numbers MPI's engines by mpi4py, which starts MPI before Horovod does, and
  puts a nanny process beside each, which a Cray does not allow. A cell that fails on one rank must
  fail on all; ipyparallel leaves the others in an average that never comes.
- `reaper`: ipyparallel ends its processes from within the notebook's kernel, so that a kernel that
  is killed (memory, a closed laptop) leaves the controller and all engines running.
- `cells`: ``%%px`` shows a cell's output when all ranks have ended, and knows nothing of an engine
  that has died. ``%%ranks`` shows rank 0 while it runs, and raises at once.
- `saving`: JupyterLab notes the kernel down in a notebook that is only opened, which git would take
  for a change.
- `place`: a kernel starts in its notebook's folder, and the notebooks' paths start at the top.
- `preparation`: ipyparallel has launchers of its own for each site; ours takes the words of
  ``jobs/<site>/site.sh``, so that a notebook and a batch job start alike.
"""

__all__ = ["cluster", "watching"]
