"""Takes finished runs of a question over into its compact records, which git keeps.

    python -m jobs.local.compact convergence            the runs below runs/convergence

A record that is there already is made anew where its run is below the folder, and stays where it is
not: runs of several machines come together so. Runs of files that no commit holds are refused.
`make figures` then draws from figures/<question>/records.jsonl.gz alone.
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

from bnnlib.analysis import compact
from bnnlib.errors import BnnlibError, RecordError
from bnnlib.record import provenance
from bnnlib.record.schema import read_record
from jobs.local import questions

ROOT = Path(__file__).parents[2]


def take_over(runs: Path, path: Path) -> tuple[int, int]:
    """Writes the compact records of all finished runs below a folder, beside those that are there.

    Args:
        runs: the folder that the runs' groups lie in.
        path: of the compact records.

    Returns:
        The number of runs taken over, and of records in the file.

    Raises:
        RecordError: no run there has finished, or one is of changed files.
    """
    known = {one["run"]: one for one in compact.read(path)} if path.exists() else {}
    taken = 0
    for file in sorted(runs.rglob("run.json")):
        record = read_record(file.parent)
        if record["status"] != "finished":
            continue
        if record["clean"] is False:
            raise RecordError(
                f"{file.parent}: made by files that no commit holds; commit, and make the run in a "
                "fresh clone"
            )
        here = record["hosts"][:1] == [socket.gethostname()]
        machine = provenance.hardware() if here else None
        made = compact.of_run(file.parent, runs, machine)
        known[made["run"]] = made
        taken += 1
    if not taken:
        raise RecordError(f"{runs}: no finished run below; make reproduce makes them")
    compact.write(path, list(known.values()))
    return taken, len(known)


def main() -> int:
    """Takes over the runs of one question."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("question", help=f"one of {', '.join(questions.QUESTIONS)}")
    parser.add_argument("--runs", type=Path, help="where they lie (default: runs/<question>)")
    arguments = parser.parse_args()
    try:
        questions.question(arguments.question)
        path = ROOT / "figures" / arguments.question / compact.FILE
        taken, total = take_over(arguments.runs or Path("runs") / arguments.question, path)
    except BnnlibError as error:
        print(f"compact: {error}", file=sys.stderr)
        return 1
    print(f"{path}: {taken} runs taken over, {total} in all, {path.stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
