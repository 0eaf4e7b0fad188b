"""The notebooks that read a group's records, executed into its folder."""

from __future__ import annotations

from pathlib import Path

from bnnlib.errors import RecordError

FOLDER = Path("notebooks")
LADDER = "ladder.json"


def draw(runs: str | Path) -> list[Path]:
    """Executes ``02_calibration`` on a group, and ``03_scaling`` if the group has a ladder.

    Both put their figures into ``<runs>/figures``. What they show, they show by the functions of
    :mod:`bnnlib.analysis`.

    Args:
        runs: the group's folder, with at least one record.

    Returns:
        The executed notebooks.

    Raises:
        RecordError: there are no records or no notebooks, or a notebook's cell has failed.
    """
    from papermill import PapermillExecutionError, execute_notebook

    from bnnlib.spmd import KernelEngine

    KernelEngine.register()  # whose kernels are quiet
    group = Path(runs)
    if not any(group.glob("**/run.json")):
        raise RecordError(f"{group}: no run records; expected a folder such as runs/digits")
    parameters = {"02_calibration": {"runs": str(group)}}
    if (group / LADDER).exists():
        parameters["03_scaling"] = {
            "runs": str(group),
            "calibration": str(group),
            "ladder": str(group / LADDER),
        }
    executed = []
    for name, values in parameters.items():
        source, target = FOLDER / f"{name}.ipynb", group / f"{name}.ipynb"
        if not source.exists():
            raise RecordError(f"no {source} here; start this in the repository's top folder")
        try:
            execute_notebook(source, target, parameters=values)
        except PapermillExecutionError as error:
            raise RecordError(f"{target}: {error.ename}: {error.evalue}") from error
        executed.append(target)
    return executed
