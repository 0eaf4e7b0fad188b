"""Simulates training steps on a dragonfly of Theta's size with SimGrid, and draws the tables.

    python -m jobs.simulation.run [--out figures/simulation]

compiles step.c, simulates what the table in the folder lacks, one simulation after another, and
draws the figures. The folder holds the measured step times (step_times.csv) that the simulated ones
are drawn from. SimGrid is Debian's: apt-get install --no-install-recommends libsimgrid-dev (24 MB).
With --draw it only draws, without SimGrid.
"""

from __future__ import annotations

import argparse
import csv
import io
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bnnlib.analysis import gallery
from bnnlib.analysis.scaling import THETA_BYTES, simulated, simulation
from bnnlib.errors import BnnlibError
from jobs.bench.common import write_origin

HERE = Path(__file__).parent
# Steps to simulate by number of ranks, so that each takes SimGrid less than a minute.
STEPS = {2: 1000, 4: 1000, 6: 1000, 8: 1000, 16: 512, 32: 256, 64: 128}
STEPS |= {128: 32, 256: 16, 512: 4, 1024: 2, 2048: 2}
# 2 R² messages an average: beyond this a step takes SimGrid minutes.
RING_RANKS = 256
# A pause of one rank takes a dozen agreements of all, too many messages beyond this.
PAUSES_RANKS = 128
# Up to here, the sizes that were measured, all agreements are simulated; beyond, only those that
# can find gradients.
MEASURED_RANKS = 8
# Where the rows of step_times.csv are from. pause_ms is from the end of the step before.
SOURCES = {
    simulation.ALONE: "github.com/Himscipy/bnn_hvd, BalsamJobCreation/Tut_BalsamBNN/data/"
    "BNN_ThetaRun_Runsof_Total_2_jobs/BNN_ThetaRun_node1_BNNRun_ID_0_ba32381e/results/"
    "BNN_Nodes_1_Run_ID_0/Result_BNN_ConvFlag_BNN_conv_flip/Timing_results_1.txt: BNN_conv_flip, "
    "batch 128, steps 3 to 500",
    simulation.TWO_NODES: "the same, BNN_ThetaRun_node2_BNNRun_ID_1_6b352d0a/…/"
    "Timing_results_2.txt: steps 3 to 250",
    simulation.HALF_BATCH: "the same repository, src/RUN_ScriptBNN/results/"
    "Result_BNN_ConvFlag_BNN_conv_flip/Timing_results_2.txt: batch 64 a rank, steps 3 to 198",
    simulation.HERE: "profile.csv of BNN_conv_flip, 2 ranks with a core each, batch 64, of "
    "`make study` (jobs/studies/scaling_short.yaml) with nothing else running, taken by --measured",
}


class SimulationError(BnnlibError):
    """SimGrid is not there, or refuses a simulation."""


def compile_step(folder: Path) -> Path:
    """Compiles step.c into a folder.

    Raises:
        SimulationError: there is no smpicc, or it fails.
    """
    if not shutil.which("smpicc") or not shutil.which("smpirun"):
        raise SimulationError(
            "no smpicc and smpirun: SimGrid is not installed (Debian: apt-get install "
            "--no-install-recommends libsimgrid-dev); --draw draws the table that is there"
        )
    program = folder / "step"
    words = ["smpicc", "-O2", "-Wall", "-Wextra", str(HERE / "step.c"), "-o", str(program), "-lm"]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise SimulationError(f"{' '.join(words)} failed: {done.stderr.strip()}")
    return program


def simulate(
    program: Path,
    times: Sequence[float],
    *,
    ranks: int,
    algorithm: str,
    steps: int,
    num_bytes: int,
    cycle: float = 0.0,
    more: Sequence[str] = (),
) -> dict[str, float]:
    """Runs one simulation.

    Args:
        program: of :func:`compile_step`.
        times: seconds that each rank's computing is drawn from.
        ranks: one a node, the platform's first.
        algorithm: a key of :data:`bnnlib.analysis.scaling.simulation.SMPI_NAMES`.
        steps: to simulate.
        num_bytes: that a rank gives to the average.
        cycle: seconds between two agreements of Horovod's threads; 0 for none.
        more: words for smpirun.

    Returns:
        What step.c prints, by name.

    Raises:
        SimulationError: smpirun fails, or prints something else.
    """
    with tempfile.TemporaryDirectory() as folder:
        hosts, drawn = Path(folder) / "hosts", Path(folder) / "times"
        hosts.write_text("".join(f"node{rank}\n" for rank in range(ranks)))
        drawn.write_text("".join(f"{time:.9f}\n" for time in times))
        words = ["smpirun", "-np", str(ranks), "-platform", str(HERE / "theta.xml")]
        words += ["-hostfile", str(hosts), "--log=root.thres:error", *more]
        words += [f"--cfg=smpi/allreduce:{simulation.SMPI_NAMES[algorithm]}", str(program)]
        # The agreement before the one that the quickest rank can be ready for is simulated, too.
        idle = int(min(times, default=0) / cycle) - 1 if cycle and ranks > MEASURED_RANKS else 0
        words += [str(drawn), str(steps), str(num_bytes), str(cycle), str(max(idle, 0))]
        done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode or not done.stdout:  # SMPI's MPI_Abort ends with 0
        raise SimulationError(f"{' '.join(words)} failed: {done.stderr.strip()[-500:]}")
    return parse(done.stdout)


def parse(text: str) -> dict[str, float]:
    """The numbers that step.c prints, whatever SimGrid prints around them.

    Raises:
        SimulationError: they are not there.
    """
    lines = text.splitlines()
    head = [number for number, line in enumerate(lines) if line.startswith("ranks,steps,")]
    rows = (
        list(csv.DictReader(io.StringIO("\n".join(lines[head[0] : head[0] + 2])))) if head else []
    )
    try:
        return {name: float(value) for name, value in rows[0].items()}
    except (IndexError, TypeError, ValueError) as error:
        raise SimulationError(
            f"no line of numbers after {rows[0] if rows else 'ranks,steps,…'} in {text[-300:]!r}"
        ) from error


def wanted() -> Iterator[dict[str, Any]]:
    """All simulations of the table, the small ones first."""
    for ranks, steps in STEPS.items():
        same = {"ranks": ranks, "spread": "none", "steps": 3 if ranks < 512 else 1}
        for algorithm in simulation.SMPI_NAMES:
            if algorithm != "ring" or ranks <= RING_RANKS:
                yield same | {"algorithm": algorithm, "cycle": 0.0}
        yield same | {"algorithm": "recursive doubling", "cycle": simulation.CYCLE}
        many = {"ranks": ranks, "algorithm": "recursive doubling", "steps": steps}
        for spread in simulation.SPREADS[1:]:
            yield many | {"spread": spread, "cycle": 0.0}
        if ranks <= PAUSES_RANKS:
            yield many | {"spread": "as measured", "cycle": simulation.CYCLE}


def fill(folder: Path) -> None:
    """Simulates what the folder's table lacks, and writes it after each simulation."""
    path = folder / "table.csv"
    step_times = simulation.read_step_times(folder / "step_times.csv")
    rows = pd.read_csv(path).to_dict("records") if path.exists() else []
    order = {_key(one): place for place, one in enumerate(wanted())}
    done = {_key(row) for row in rows}
    with tempfile.TemporaryDirectory() as build:
        program = compile_step(Path(build))
        for one in wanted():
            if _key(one) in done:
                continue
            spread = one["spread"]
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            numbers = simulate(
                program,
                simulation.quantiles(step_times, spread).tolist(),
                num_bytes=THETA_BYTES["BNN"],
                **{name: value for name, value in one.items() if name != "spread"},
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cost = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            counts = {
                name: int(numbers[name]) for name in ("ranks", "steps", "bytes", "agreements")
            }
            row = {"algorithm": one["algorithm"], "spread": spread} | numbers | counts
            row |= {"cpu_seconds": round(cost, 1)}
            print(*row.values(), sep=", ", flush=True)
            rows = sorted([*rows, row], key=lambda one: order[_key(one)])
            pd.DataFrame(rows).to_csv(path, index=False)
    version = subprocess.run(["smpirun", "-version"], capture_output=True, text=True).stdout
    simgrid = next((line for line in version.splitlines() if "SimGrid" in line), "unknown")
    write_origin(folder / "table.json", simgrid=simgrid, step_times=SOURCES)


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells a simulation from the others."""
    return tuple(row[name] for name in ("algorithm", "spread", "ranks", "cycle"))


def take_profile(profile: Path, path: Path) -> None:
    """Puts a run's profile into the measured step times, as this machine's.

    Of each rank and step it takes the rank's own work: not waiting, negotiation and the average.
    """
    steps = pd.read_csv(profile)
    steps = steps[~steps.warmup]
    work = steps.ms - steps.wait_ms - steps.negotiation_ms - steps.allreduce_ms
    own = pd.DataFrame({"run": simulation.HERE, "step": steps.step, "ms": work.round(3)})
    others = pd.read_csv(path)
    others = others[others.run != simulation.HERE]
    pd.concat([others, own.assign(pause_ms=0.0)]).to_csv(path, index=False)


def draw(folder: Path) -> None:
    """Draws the figures of the folder's tables, each as png and svg, its own table beside it."""
    step_times = simulation.read_step_times(folder / "step_times.csv")
    simulations = simulation.read_table(folder / "table.csv")
    origin = {"command": "python -m jobs.simulation.run", "from": ["table.csv", "step_times.csv"]}
    fitted = simulation.spreads(step_times)
    for name, table, figure in (
        ("spread", simulation.exceedance(step_times, fitted), simulated.spread),
        ("simulated", simulation.step_table(simulations, step_times), simulated.step_times),
    ):
        # To six digits, so that another machine's last digits change no file.
        text = table.to_csv(index=False, float_format="%.6g")
        table = pd.read_csv(io.StringIO(text))
        drawn = figure(table)
        gallery.save(drawn, table, folder, name, origin)
        gallery.save_svg(drawn, folder / f"{name}.svg")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("figures/simulation"))
    parser.add_argument("--draw", action="store_true", help="only draw the tables that are there")
    parser.add_argument(
        "--measured", type=Path, help="a profile.csv to take this machine's steps of"
    )
    arguments = parser.parse_args()
    try:
        if arguments.measured:
            take_profile(arguments.measured, arguments.out / "step_times.csv")
        if not arguments.draw:
            fill(arguments.out)
        draw(arguments.out)
    except BnnlibError as error:
        raise SystemExit(f"simulation: {error}") from error


if __name__ == "__main__":
    main()
