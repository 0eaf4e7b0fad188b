"""Where a notebook's relative paths start: in JupyterLab where they do at the command line."""

from __future__ import annotations

import os
from pathlib import Path

from bnnlib import launcher

SITE = Path("jobs", "local", "site.sh")


def repository() -> Path:
    """The repository of the notebook that runs here, to which its paths belong.

    The nearest folder with ``jobs/local/site.sh``, from the working folder upwards, since a kernel
    starts in its notebook's folder; without one, the working folder. It need not be the repository
    that this package is installed from.
    """
    here = Path.cwd()
    return next((one for one in (here, *here.parents) if (one / SITE).is_file()), here)


def settle_paths() -> None:
    """Makes the notebook's repository the working folder, unless papermill runs the notebook.

    papermill's paths are from the folder that it was started in, as those of any command. A kernel
    of JupyterLab starts in its notebook's folder, where no path of the repository would be found.
    """
    if launcher.PAPERMILL_VARIABLE not in os.environ:
        os.chdir(repository())
