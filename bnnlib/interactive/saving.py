"""What JupyterLab's server does once it has saved a notebook; ``jobs/lab.sh`` names it as the hook.

git's filter (``.gitattributes``) takes from a notebook what a run has left there. But `git status`
takes a file of another length for changed without asking the filter.
"""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Any


def after_save(os_path: str, model: dict[str, Any], **_: Any) -> None:
    """Jupyter's ``post_save_hook``: :func:`tell_git`, without keeping the server waiting."""
    if model["type"] == "notebook":
        threading.Thread(target=tell_git, args=(Path(os_path),), daemon=True).start()


def tell_git(notebook: Path) -> None:
    """Has git know a notebook as unchanged where all that differs is what the filter takes away.

    A change of the reader's own is left for the reader to add. Without git, or outside of a
    repository, it does nothing.
    """

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=notebook.parent, capture_output=True, text=True, check=True
        )
        return done.stdout

    try:
        if git("rev-parse", f":./{notebook.name}") == git("hash-object", notebook.name):
            git("add", "--", notebook.name)  # the same content: only the length is noted
    except (OSError, subprocess.CalledProcessError):
        return
