"""What the start of two ranks asks of the file system that holds the environment.

A launch to the first step in three ways; the environment lies in one folder, as on the file system
that a cluster's nodes share, and its archive (jobs/pack_environment.sh) beside it:

    shared          each rank imports from that folder
    packed, first   jobs/packed.sh: a rank unpacks the archive to the node's disk, all import there
    packed, again   the same where the node has its copy already

strace counts the operations that name a path (open, stat, access, readlink and the like) and the
listings of folders, those that fail among them. A second launch without strace, after the kernel
has dropped the files from its cache, tells what is read from the disk and the seconds of CPU. No
wall time is told: on one machine's own disk it says nothing of a cluster's.

    python -m jobs.bench.startup_files [--model BNN_conv_flip] [--out FOLDER] [--archive FILE]

needs strace and 6 GB below TMPDIR; it writes startup_files.csv and startup_files.json, its origin.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from jobs.bench.common import ROOT, worker_environment, write_origin, write_table

RANKS = "2"
TIMEOUT = 600.0
# strace of each thread into a file of its own, so that no line is cut by another thread's.
STRACE = "strace -ff -qq -y --seccomp-bpf --signal=none -e trace=%file,getdents64 -s 4096"
_CALL = re.compile(r'^(\w+)\((?:[\w-]+<([^>]*)>)?(?:, )?(?:"([^"]*)")?')


class Operation(NamedTuple):
    """One call that names a path."""

    call: str
    path: str
    found: bool


def operations(lines: Iterable[str], folder: str) -> Iterator[Operation]:
    """The calls in strace's lines (`-y`); a relative path is one in `folder`."""
    for line in lines:
        match = _CALL.match(line)
        if match is None or not (match[2] or match[3]):
            continue
        path = os.path.normpath(os.path.join(match[2] or folder, match[3] or ""))
        yield Operation(match[1], path, " = -1 E" not in line)


def count(found: Iterable[Operation], places: Mapping[str, str]) -> dict[str, int]:
    """Operations, those that failed, and distinct files opened, by place.

    Args:
        found: the operations.
        places: a folder or a file by its place's name; the first that holds a path counts it.
    """
    counts = {f"{what}, {place}": 0 for place in places for what in ("operations", "failed")}
    files: dict[str, set[str]] = {place: set() for place in places}
    for call, path, is_found in found:
        place = next((p for p, top in places.items() if f"{path}/".startswith(f"{top}/")), None)
        if place is None:
            continue
        counts[f"operations, {place}"] += 1
        counts[f"failed, {place}"] += not is_found
        if call.startswith("open") and is_found and not os.path.isdir(path):
            files[place].add(path)
    return counts | {f"files, {place}": len(names) for place, names in files.items()}


def forget(*paths: Path) -> None:
    """Has the kernel drop the files from its cache, those within folders too."""
    os.sync()
    for top in paths:
        for path in [top] if top.is_file() else top.rglob("*"):
            if path.is_file() and not path.is_symlink():
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)


def run(words: list[str], environment: dict[str, str], trace: Path | None) -> dict[str, float]:
    """Launches two ranks to the end of one step; MB read from the disk and seconds of CPU."""
    if trace is not None:
        words = ["sh", "-c", f'exec {STRACE} -o {trace}/$PMI_RANK "$@"', "strace", *words]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [str(Path(sys.executable).with_name("mpiexec")), "-n", RANKS, *words],
        env=worker_environment() | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}: no step was taken:\n{done.stdout}{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "MB read from the disk": round((after.ru_inblock - before.ru_inblock) * 512 / 1e6, 1),
        "seconds of CPU": round(cpu, 1),
    }


def main() -> None:
    """Packs, launches, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="BNN_conv_flip")
    parser.add_argument("--out", type=Path, help="folder of the table and its origin")
    parser.add_argument(
        "--archive", type=Path, help="an archive of this environment, not a new one"
    )
    arguments = parser.parse_args()
    top = Path(tempfile.mkdtemp())
    archive, shared, node = top / "archive" / "bnn.tar", top / "shared", top / "node"
    for folder in (archive.parent, shared, node):
        folder.mkdir()
    try:
        if arguments.archive:
            for end in ("", ".sum"):
                os.link(f"{arguments.archive}{end}", f"{archive}{end}")
        else:
            environment = os.environ | {"BNN_ENV": sys.prefix}
            pack = ["jobs/pack_environment.sh", str(archive)]
            subprocess.run(pack, cwd=ROOT, env=environment, check=True)
        packed = {"BNN_PACKED": str(archive)}
        # A copy that nobody else reads, so that the kernel can drop its files.
        subprocess.run(
            ["jobs/packed.sh", "true"], cwd=ROOT, check=True,
            env=os.environ | packed | {"BNN_NODE_DISK": str(shared)},
        )  # fmt: skip
        (copy,) = shared.glob("bnn-*/*/stamp")
        home = f"{copy.parent}{os.path.realpath(sys.prefix)}"
        libraries = {"LD_LIBRARY_PATH": f"{copy.parent / 'lib'}:{home}/lib"}
        on_node = packed | {"BNN_NODE_DISK": str(node)}
        ways = {
            "shared": ([f"{home}/bin/python"], libraries),
            "packed, first": (["jobs/packed.sh", "python"], on_node),
            "packed, again": (["jobs/packed.sh", "python"], on_node),
        }
        places = {"environment": shared, "archive": archive.parent, "node": node}
        places |= {"checkout": ROOT, "home": Path.home()}
        rows = []
        for way, (python, environment) in ways.items():
            values: dict[str, float] = {}
            for traced in (True, False):
                folder = Path(tempfile.mkdtemp(dir=top))
                trace = folder / "trace" if traced else None
                if trace:
                    trace.mkdir()
                if way == "packed, first":
                    shutil.rmtree(node)
                    node.mkdir()
                forget(shared, archive, node)
                settings = {"model": arguments.model, "dataset": "digits", "steps": 1}
                settings |= {"test_draws": 1, "run_dir": str(folder / "run")}
                program = [str(ROOT / "tests/faults/train.py"), json.dumps(settings)]
                cost = run([*python, *program], environment, trace)
                if trace is None:
                    values |= cost
                    continue
                calls = (
                    operation
                    for file in sorted(trace.iterdir())
                    for operation in operations(file.read_text().splitlines(), str(ROOT))
                )
                values |= count(calls, {place: str(at) for place, at in places.items()})
            rows += [{"way": way, "quantity": what, "value": n} for what, n in values.items()]
            print(way, values, flush=True)
    finally:
        shutil.rmtree(top)
    if arguments.out:
        write_table(arguments.out / "startup_files.csv", rows)
        write_origin(arguments.out / "startup_files.json", model=arguments.model, ranks=int(RANKS))


if __name__ == "__main__":
    main()
