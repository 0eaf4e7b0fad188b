"""A packed environment: what ranks import comes from the node's copy, whole and shared safely."""

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from tests.jobs.test_site_scripts import QUEUES, STAND_INS

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PACKED = ROOT / "jobs" / "packed.sh"

# What tells where a program's interpreter, modules and libraries come from.
PROBE = """
import json, sys, ctypes, probed
maps = {line.split()[-1] for line in open("/proc/self/maps") if "/" in line}
files = [module.__file__ for module in sys.modules.values() if getattr(module, "__file__", None)]
print(json.dumps({"prefix": sys.prefix, "base": sys.base_prefix, "probed": probed.__file__,
                  "files": files, "maps": sorted(maps), "words": sys.argv[1:]}))
"""


def small_environment(folder: Path) -> Path:
    """A virtual environment with a script `papermill` and a module, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    script = folder / "bin" / "papermill"
    script.write_text(f"#!{folder}/bin/python3\n{PROBE}")
    script.chmod(0o755)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "probed.py").write_text("")
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    return small_environment(tmp_path_factory.mktemp("shared") / "env")


@pytest.fixture(scope="module")
def archive(environment) -> Path:
    path = environment.parent / "env.tar"
    pack(environment, path)
    return path


def pack(environment: Path, path: Path) -> None:
    subprocess.run(
        [ROOT / "jobs" / "pack_environment.sh", path],
        env=os.environ | {"BNN_ENV": str(environment)},
        check=True,
        capture_output=True,
    )


def start(archive: Path, disk: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [PACKED, *words],
        env=os.environ | {"BNN_PACKED": str(archive), "BNN_NODE_DISK": str(disk)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def packed(archive: Path, disk: Path, *words: str) -> str:
    """What a program in the copy prints."""
    process = start(archive, disk, *words)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return out


def refused(archive: Path, disk: Path) -> str:
    process = start(archive, disk, "papermill")
    out, error = process.communicate(timeout=120)
    assert process.returncode != 0
    assert out == ""
    return error


def copy_of(archive: Path, disk: Path) -> Path:
    sum_, size, _ = archive.with_name(f"{archive.name}.sum").read_text().split("\n")[0].split()
    return disk / f"bnn-{os.getuid()}" / f"{sum_}-{size}"


def test_interpreter_modules_and_libraries_are_the_copys(archive, environment, tmp_path):
    told = json.loads(packed(archive, tmp_path, "papermill", "a b", "--c"))
    copy = str(copy_of(archive, tmp_path))
    assert told["words"] == ["a b", "--c"]
    assert told["prefix"] == copy + os.path.realpath(environment)
    assert told["base"].startswith(copy)
    assert told["probed"].startswith(told["prefix"])
    assert all(file.startswith(copy) for file in told["files"])
    # Besides, only the system's own libraries are mapped: nothing of the shared folders.
    base = os.path.realpath(sys.base_prefix)
    shared = [str(environment), os.path.realpath(sys.prefix), *([base] if base != "/usr" else [])]
    assert not [name for name in told["maps"] if name.startswith(tuple(shared))]


def test_a_rank_keeps_the_files_that_its_launcher_opened(archive, tmp_path):
    """MPICH tells a rank on file 9, or another, where to find the others (PMI_FD)."""
    code = "import os; os.write(9, b'to the launcher')"
    subprocess.run(
        ["bash", "-c", f'exec 9>"$1/told"; exec {PACKED} python -c "{code}"', "bash", tmp_path],
        env=os.environ | {"BNN_PACKED": str(archive), "BNN_NODE_DISK": str(tmp_path)},
        check=True,
        timeout=120,
    )
    assert (tmp_path / "told").read_text() == "to the launcher"


def test_a_compressed_archive_is_the_same(environment, tmp_path):
    path = tmp_path / "env.tar.zst"
    pack(environment, path)
    assert path.stat().st_size < int(path.with_name("env.tar.zst.sum").read_text().split()[2]) / 2
    assert json.loads(packed(path, tmp_path, "papermill"))["prefix"].startswith(str(tmp_path))


@pytest.mark.parametrize("stamp", [None, "1 2"])
def test_a_copy_that_is_not_whole_is_made_anew(archive, tmp_path, stamp):
    """As a job leaves it that was killed while it unpacked, or one with another archive."""
    copy = copy_of(archive, tmp_path)
    for left in (copy, copy.with_name(f"{copy.name}.new")):
        left.mkdir(mode=0o700, parents=True)
        (left / "rest").touch()
        if stamp:
            (left / "stamp").write_text(stamp)
    json.loads(packed(archive, tmp_path, "papermill"))
    assert not (copy / "rest").exists()
    assert [path.name for path in copy.parent.iterdir() if path.suffix == ".new"] == []


def test_a_whole_copy_is_taken_as_it_is(archive, tmp_path):
    packed(archive, tmp_path, "true")
    stamp = copy_of(archive, tmp_path) / "stamp"
    before = stamp.stat()
    packed(archive, tmp_path, "true")
    after = stamp.stat()
    assert (after.st_ino, after.st_ctime_ns) == (before.st_ino, before.st_ctime_ns)


def test_ranks_that_start_at_once_unpack_once(archive, tmp_path):
    log, path = tmp_path / "log", tmp_path / "bin"
    path.mkdir()
    tar = path / "tar"
    tar.write_text(f'#!/bin/sh\necho tar >>{log}\nPATH={os.environ["PATH"]} exec tar "$@"\n')
    tar.chmod(0o755)
    disk = tmp_path / "disk"
    disk.mkdir()
    processes = [
        subprocess.Popen(
            [PACKED, "papermill"],
            env=os.environ
            | {"BNN_PACKED": str(archive), "BNN_NODE_DISK": str(disk)}
            | {"PATH": f"{path}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    prefixes = {json.loads(p.communicate(timeout=120)[0])["prefix"] for p in processes}
    assert len(prefixes) == 1
    assert log.read_text().splitlines() == ["tar"]


def test_a_rank_that_waits_for_another_does_not_hold_it_up(archive, tmp_path):
    """The first rank waits, as in MPI_Init, for one that asks for the lock when it has begun."""
    slow = tmp_path / "bin" / "flock"
    slow.parent.mkdir()
    slow.write_text(
        f"""#!/bin/sh
PATH={os.environ["PATH"]}
for file; do :; done
case $* in *--exclusive*) flock --unlock "$file"; touch {tmp_path}/asked; sleep 3 ;; esac
exec flock "$@"
"""
    )
    slow.chmod(0o755)
    variables = {"BNN_PACKED": str(archive), "BNN_NODE_DISK": str(tmp_path)}
    late = subprocess.Popen(
        [PACKED, "python", "-c", f"open('{tmp_path}/begun', 'w')"],
        env=os.environ | variables | {"PATH": f"{slow.parent}:{os.environ['PATH']}"},
    )
    wait = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.05)"
    try:
        while not (tmp_path / "asked").exists():
            time.sleep(0.05)
        first = start(archive, tmp_path, "python", "-c", wait, str(tmp_path / "begun"))
        assert late.wait(timeout=60) == 0
        assert first.wait(timeout=60) == 0
    finally:
        late.kill()
        first.kill()


def test_a_job_that_ends_leaves_the_copy_to_another_jobs_rank(archive, tmp_path):
    process = subprocess.Popen(
        [PACKED, "python", "-c", "print('runs', flush=True); input(); import probed; print('on')"],
        env=os.environ | {"BNN_PACKED": str(archive), "BNN_NODE_DISK": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "runs\n"
    packed(archive, tmp_path, "--remove")
    assert copy_of(archive, tmp_path).exists()
    assert process.communicate("\n", timeout=60)[0] == "on\n"
    packed(archive, tmp_path, "--remove")
    assert not copy_of(archive, tmp_path).exists()


def changed(archive: Path, folder: Path, change) -> Path:
    """A copy of the archive and its .sum, changed."""
    new = folder / "changed.tar"
    content = bytearray(archive.read_bytes())
    new.write_bytes(change(content))
    new.with_name("changed.tar.sum").write_text(archive.with_name("env.tar.sum").read_text())
    return new


def test_an_archive_that_was_cut_short_is_refused(archive, tmp_path):
    cut = changed(archive, tmp_path, lambda content: content[:100_000])
    assert f"{cut} is not the file of" in refused(cut, tmp_path)
    assert not copy_of(cut, tmp_path).exists()


def test_an_archive_with_a_wrong_byte_is_refused(archive, tmp_path):
    def flip(content):
        content[len(content) // 2] ^= 1
        return content

    wrong = changed(archive, tmp_path, flip)
    assert f"{wrong} is not what its {wrong}.sum was made of" in refused(wrong, tmp_path)
    assert not copy_of(wrong, tmp_path).exists()


def test_a_disk_too_small_is_told_before_it_is_filled(archive, tmp_path):
    big = changed(archive, tmp_path, bytes)
    sums = big.with_name("changed.tar.sum")
    unpacked = sums.read_text().split()[2]
    sums.write_text(sums.read_text().replace(f" {unpacked}\n", f" {10**16}\n", 1))
    told = refused(big, tmp_path)
    assert f"BNN_NODE_DISK={tmp_path}: " in told
    assert f"bytes are free, and the environment needs {10**16}" in told
    assert "Name another folder, or remove the copies of your jobs that have ended" in told


def test_a_disk_that_fills_up_is_told_and_nothing_half_is_left(archive, tmp_path):
    """No file may be larger than 1 MB, so tar fails in the midst, as on a full disk."""
    process = subprocess.run(
        ["bash", "-c", f"ulimit -f 1000; {PACKED} papermill"],
        env=os.environ | {"BNN_PACKED": str(archive), "BNN_NODE_DISK": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode != 0
    assert "unpacking failed there, for the reason above" in process.stderr
    assert [path.suffix for path in copy_of(archive, tmp_path).parent.iterdir()] == [".lock"]


def test_a_folder_of_somebody_else_is_not_used(archive, tmp_path):
    (tmp_path / "others").mkdir()
    (tmp_path / f"bnn-{os.getuid()}").symlink_to(tmp_path / "others")
    assert "is not your own folder; name another BNN_NODE_DISK" in refused(archive, tmp_path)


def in_job(
    site: str, command: str, queue: Path, **variables: object
) -> subprocess.CompletedProcess:
    """A command of a site's scripts in a job of two ranks on one node, with the stand-ins."""
    (queue / "nodes").write_text("x3001\n")
    (queue / "099.json").write_text(
        '{"id": "099", "state": "running", "walltime": "01:00:00", "queue": "", "after": []}'
    )
    if site in QUEUES:
        variables["PATH"] = f"{STAND_INS / QUEUES[site]}{os.pathsep}{BIN}:{os.environ['PATH']}"
    else:
        variables["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    if QUEUES.get(site) == "pbs":
        variables |= {"PBS_JOBID": "099", "PBS_NODEFILE": queue / "nodes"}
    variables |= {"STAND_IN": queue, "STAND_IN_MPIEXEC": BIN / "mpiexec", "COBALT_JOBSIZE": "1"}
    variables |= {"CRAY_LD_LIBRARY_PATH": "/opt/cray/lib", "PPN": "2", "THREADS": "1", "GPUS": "0"}
    return subprocess.run(
        ["bash", "-c", f"set -e; source jobs/{site}/site.sh; {command}"],
        cwd=ROOT,
        env=os.environ | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
        timeout=120,
    )


SITES = ("local", "crux", "polaris", "aurora", "theta")


@pytest.mark.ranks
@pytest.mark.parametrize("site", SITES)
def test_each_sites_ranks_take_the_copy_and_its_job_removes_it(
    site, archive, environment, tmp_path
):
    done = in_job(
        site,
        'site_env; "${LAUNCH[@]}" papermill; exit 3',
        tmp_path,
        BNN_ENV=environment,
        BNN_PACKED=archive,
        BNN_NODE_DISK=tmp_path,
    )
    assert done.returncode == 3, done.stderr
    ranks = [json.loads(line) for line in done.stdout.splitlines()]
    copy = copy_of(archive, tmp_path)
    assert [rank["prefix"].startswith(str(copy)) for rank in ranks] == [True, True]
    assert copy.parent.exists()
    assert not copy.exists()


def test_a_successor_is_told_of_the_archive(archive, environment, tmp_path):
    settings = {"BNN_ENV": environment, "BNN_PACKED": archive, "BNN_NODE_DISK": tmp_path}
    done = in_job("polaris", 'pass_on; echo "${PASSED[@]}"', tmp_path, **settings)
    assert {"BNN_ENV", "BNN_PACKED", "BNN_NODE_DISK"} <= set(done.stdout.split()), done.stderr


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"BNN_PACKED": "no.tar"}, "BNN_PACKED=no.tar: there is no such file; make it by"),
        ({"BNN_PACKED": "a", "BNN_CONTAINER": "b"}, "BNN_PACKED BNN_CONTAINER: each says where"),
        ({"BNN_COPPER": "1"}, "BNN_COPPER: only Aurora has Copper"),
    ],
)
def test_what_cannot_be_is_told(variables, why, environment, tmp_path):
    done = in_job("crux", "site_env", tmp_path, BNN_ENV=environment, **variables)
    assert done.returncode == 1
    assert why in done.stderr


def test_an_environment_that_has_changed_since_is_told(archive, environment, tmp_path):
    now = archive.stat().st_mtime + 60
    (site,) = environment.glob("lib/python3*/site-packages")
    before = site.stat()
    os.utime(site, (now, now))
    try:
        done = in_job("crux", "site_env", tmp_path, BNN_ENV=environment, BNN_PACKED=archive)
    finally:
        os.utime(site, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert done.returncode == 1
    assert f"{environment} has changed since it was packed; make it by" in done.stderr


def test_a_container_stands_between_launcher_and_program(tmp_path):
    done = in_job("polaris", 'echo "${LAUNCH[*]}"', tmp_path, BNN_CONTAINER="bnn.sif")
    line = f" apptainer exec --pwd {ROOT} --env PYTHONPATH={ROOT} bnn.sif"
    assert done.stdout.strip().endswith(line)


def test_copper_serves_the_packages_until_the_job_ends(environment, tmp_path):
    user = f"test-{uuid.uuid4().hex}"
    mount = Path("/tmp") / user / "copper_mount"
    command = 'site_env; python -c "import probed; print(probed.__file__)"; exit 3'
    done = in_job("aurora", command, tmp_path, BNN_ENV=environment, BNN_COPPER=1, USER=user)
    mount.parent.rmdir()  # the stand-in took its mount away, or this fails
    assert done.returncode == 3, done.stderr
    (site,) = Path(os.path.realpath(environment)).glob("lib/python3*/site-packages")
    assert done.stdout.strip() == f"{mount}{site}/probed.py"


# As tests/faults/train.py, and then each rank tells what it has imported and mapped.
TRAIN = """
import json, os, sys
import bnnlib
from bnnlib.experiment import Experiment
from bnnlib.launch import command
command.run(Experiment.from_mapping(json.loads(sys.argv[1])))
modules = list(sys.modules.values())
files = {str(module.__file__) for module in modules if getattr(module, "__file__", None)}
files |= {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
with open(f"{sys.argv[2]}-{os.environ['PMI_RANK']}", "w") as file:
    json.dump(sorted(files), file)
"""


@pytest.mark.long
@pytest.mark.ranks
@pytest.mark.timeout(600)
def test_two_ranks_of_a_packed_environment_train_to_the_same_bits(launch, tmp_path):
    archive = tmp_path / "bnn.tar"
    pack(Path(sys.prefix), archive)
    (tmp_path / "train.py").write_text(TRAIN)
    environment = {"PYTHONPATH": str(ROOT), "BNN_PACKED": str(archive)}
    environment |= {"BNN_NODE_DISK": str(tmp_path), "OMP_NUM_THREADS": "1"}
    for way, words in (("shared", ["python"]), ("packed", [PACKED, "python"])):
        run = tmp_path / way
        settings = {"model": "BNN_FC_flip", "dataset": "tiny", "epochs": 2, "run_dir": str(run)}
        done = launch(
            *("mpiexec", "-n", "2", *words, tmp_path / "train.py"),
            *(json.dumps(settings | {"test_draws": 2}), tmp_path / f"{way}-files"),
            environment=environment,
            timeout=400,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "packed" / "predictions.npz").read_bytes() == (
        tmp_path / "shared" / "predictions.npz"
    ).read_bytes()
    copy = str(copy_of(archive, tmp_path))
    own = (f"{ROOT}/bnnlib/", str(tmp_path / "train.py"), "/usr/lib", "/lib")
    for rank in range(2):
        files = json.loads((tmp_path / f"packed-files-{rank}").read_text())
        assert sum(file.startswith(copy) for file in files) > 1000
        files = [file for file in files if "__autograph_generated" not in file]  # made as it runs
        assert [file for file in files if not file.startswith((copy, *own))] == []
