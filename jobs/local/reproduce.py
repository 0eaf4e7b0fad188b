"""Makes the runs of a question, and from them its figures: `make reproduce QUESTION=convergence`.

    python -m jobs.local.reproduce convergence [--dry-run] [--only convergence]

Says first what each study file costs in core-hours (:mod:`jobs.local.cost`) and asks nothing more.
Records go to runs/<question>. Started again it goes on where it ended: finished runs are passed
over, and a run that was cut off goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bnnlib.errors import BnnlibError
from bnnlib.launch import study_file
from jobs.local import compact, cost, figures, questions

ROOT = Path(__file__).parents[2]


def commands(name: str, only: Sequence[str] = ()) -> list[list[str]]:
    """What makes a question's runs and looks, in order; each command is one launch.

    Args:
        name: of the question.
        only: of its study files; all if empty.
    """
    question, runs = questions.question(name), f"runs/{name}"
    made = []
    for study in only or question.studies:
        file = f"jobs/studies/{study}.yaml"
        numbers = dict.fromkeys(run.ranks for run in study_file.read(ROOT / file, runs, 1))
        for ranks in numbers:
            mpiexec = str(Path(sys.executable).with_name("mpiexec"))  # of the same environment
            launch = [mpiexec, "-n", str(ranks)] if ranks > 1 else []
            made.append([*launch, sys.executable, "-m", "bnnlib", "plan", file, "--runs", runs])
        if question.epochs:
            epochs = map(str, question.epochs)
            made.append([sys.executable, "-m", "jobs.local.looks", runs, "--epochs", *epochs])
    if question.measured_by:
        made.append([sys.executable, "-m", question.measured_by, runs, f"figures/{name}"])
    return made


def main() -> int:
    """Prices, runs, and draws one question."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("question", help=f"one of {', '.join(questions.QUESTIONS)}")
    parser.add_argument("--dry-run", action="store_true", help="say what it costs, start nothing")
    parser.add_argument("--only", nargs="+", default=[], help="these of its study files")
    arguments = parser.parse_args()
    name = arguments.question
    try:
        question = questions.question(name)
        for study in arguments.only or question.studies:
            file = ROOT / "jobs" / "studies" / f"{study}.yaml"
            told = cost.told(study_file.read(file, f"runs/{name}", 1), question.epochs)
            print(f"{file.relative_to(ROOT)}\n{told}")
        sys.stdout.flush()
        if arguments.dry_run:
            return 0
        for command in commands(name, arguments.only):
            done = subprocess.run(command, cwd=ROOT)
            if done.returncode:
                return done.returncode
        path = ROOT / "figures" / name / compact.compact.FILE
        compact.take_over(ROOT / "runs" / name, path)
        figures.draw(name, path.parent, path.parent)
    except BnnlibError as error:
        print(f"reproduce: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
