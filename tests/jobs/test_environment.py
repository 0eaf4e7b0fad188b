"""The environment's files agree, and each way in which set-up can fail is told in one sentence."""

import ast
import os
import re
import shutil
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "jobs" / "local" / "environment.sh"
CHECK = ROOT / "jobs" / "local" / "check_horovod.py"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# conda-forge's names for the parts that leave out a graphical toolkit.
CONDA_NAMES = {"matplotlib-base": "matplotlib", "seaborn-base": "seaborn"}
# What a package is called where it is imported, if otherwise than on the index.
IMPORTED_AS = {
    "absl": "absl-py",
    "IPython": "ipython",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
# The lock has both: one for Linux on x86-64, the other elsewhere.
TENSORFLOWS = {"tensorflow", "tensorflow-cpu"}
LOCKED_EXTRAS = ("build", "cpu", "dev", "lab")


def locked(python: str, machine: str = "x86_64") -> dict[str, str]:
    """The lock's versions for one Python on Linux, by canonical name."""
    versions: dict[str, str] = {}
    pattern = re.compile(r"^([\w.-]+)==([^\s;]+)(?: ; ([^\\\n]*?))? \\$", re.MULTILINE)
    for name, version, marker in pattern.findall((ROOT / "requirements.lock").read_text()):
        target = {
            "python_version": python,
            "python_full_version": f"{python}.7",
            "sys_platform": "linux",
            "platform_machine": machine,
        }
        if not marker or Marker(marker).evaluate(target):
            versions[canonicalize_name(name)] = version
    return versions


def conda() -> dict[str, str]:
    """The versions that environment.yml asks for, from conda-forge and from the index."""
    versions: dict[str, str] = {}
    for line in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]:
        for requirement in line["pip"] if isinstance(line, dict) else [line]:
            found = re.match(r"([\w.-]+)(?:\[version=\"=*|=+)?([\w.]*)", requirement)
            assert found, requirement
            name, version = found.groups()
            versions[canonicalize_name(CONDA_NAMES.get(name, name))] = version
    return versions


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def test_conda_and_lock_have_the_same_minor_versions():
    wanted = conda()
    python = wanted.pop("python")
    del wanted["pip"], wanted["horovod"]  # the one is the installer, the other is in no lock
    lock = locked(python) | locked(python, "aarch64")
    assert {n: minor(v) for n, v in wanted.items()} == {n: minor(lock[n]) for n in wanted}


def test_conda_has_every_dependency_and_the_same_horovod():
    wanted = conda()
    lines = [*PROJECT["dependencies"], *EXTRAS["lab"]]
    assert not {canonicalize_name(Requirement(line).name) for line in lines} - set(wanted)
    assert f"horovod=={wanted['horovod']}" in EXTRAS["horovod"]


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_lock_satisfies_pyproject(python, machine):
    lock = locked(python, machine)
    target = {"sys_platform": "linux", "platform_machine": machine}
    for extra in LOCKED_EXTRAS:
        assert f"--extra {extra}" in (ROOT / "Makefile").read_text()
    # On Linux on x86-64 the one stands for the other.
    lock["tensorflow"] = lock.get("tensorflow", lock.get("tensorflow-cpu", ""))
    lines = [line for extra in LOCKED_EXTRAS for line in EXTRAS[extra]]
    for line in PROJECT["dependencies"] + lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate(target):
            assert requirement.specifier.contains(lock[canonicalize_name(requirement.name)]), line


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_lock_has_one_tensorflow_a_machine(machine):
    # Two of them unpack into one folder, and what is imported is a mixture.
    wanted = "tensorflow-cpu" if machine == "x86_64" else "tensorflow"
    assert set(locked("3.11", machine)) & TENSORFLOWS == {wanted}


def test_what_is_imported_is_declared():
    # Only the standard library may be imported without being asked for.
    modules = set()
    for file in (ROOT / "bnnlib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                modules.add(node.module.split(".")[0])
    lines = [*PROJECT["dependencies"], *EXTRAS["lab"]]
    declared = {canonicalize_name(Requirement(line).name) for line in lines}
    imported = {canonicalize_name(IMPORTED_AS.get(m, m)) for m in modules}
    standard = {canonicalize_name(m) for m in sys.stdlib_module_names} | {"bnnlib", "horovod"}
    assert imported - standard <= declared


def test_pip_alone_installs_one_tensorflow_and_no_jupyterlab():
    """tf-keras asks for `tensorflow`, and tensorflow-cpu would unpack into the same folder."""
    names = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    assert names & TENSORFLOWS == {"tensorflow"}
    assert not names & {"horovod", "jupyterlab", "ipyparallel"}


def test_horovod_is_not_locked_since_it_is_built_last():
    assert "horovod" not in locked("3.11")


def test_no_package_index_is_written_down():
    for name in ("requirements.lock", "pyproject.toml", "environment.yml", "Makefile"):
        text = (ROOT / name).read_text()
        assert not re.search(r"(index-url|find-links|trusted-host|https?://)", text), name


@pytest.fixture
def rattler():
    """conda's rules, as its successor in Rust has them."""
    return pytest.importorskip("rattler", reason="no py-rattler here: make env")


def pin(name: str) -> str:
    lines = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    (line,) = [one for one in lines if isinstance(one, str) and re.match(rf"{name}\b(?!-)", one)]
    return line


def takes(rattler, line: str, version: str, build: str = "py311h0123456_0") -> bool:
    """Whether conda would take this build for a line of environment.yml."""
    name, number = re.split(r"[=\[]", line)[0], int(build.rpartition("_")[2])
    build = rattler.BuildString(build)
    record = rattler.PackageRecord(name, version, build, number, "linux-64")
    return rattler.MatchSpec(line).matches(record)


# Conda's names, as the file has them, of what is in the lock.
LOCKED_PINS = [
    line
    for line in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    if isinstance(line, str) and not re.match(r"(python|pip|horovod|tensorflow)\b(?!-)", line)
]


@pytest.mark.parametrize("line", LOCKED_PINS)
def test_conda_takes_the_locked_version_and_not_the_next_minor_one(rattler, line):
    name = line.partition("=")[0]
    version = locked("3.11")[canonicalize_name(CONDA_NAMES.get(name, name))]
    assert takes(rattler, line, version)
    major, below = version.split(".")[:2]
    assert not takes(rattler, line, f"{major}.{int(below) + 1}.0")


@pytest.mark.parametrize(
    ("name", "version", "build", "taken"),
    [
        # What conda 25.5 installed together (a public log of DeePMD-kit's installer, June 2025).
        ("horovod", "0.28.1", "cpu_mpi_mpich_h0a7ad20_10", True),
        ("tensorflow", "2.18.0", "cpu_py312h69ecde4_0", True),
        ("mpich", "4.3.0", "h1a8bee6_100", True),
        # For other versions of TensorFlow, another MPI, and GPUs.
        ("horovod", "0.28.1", "cpu_mpi_mpich_h0a7ad20_8", False),
        ("horovod", "0.28.1", "cpu_mpi_mpich_h0a7ad20_12", False),
        ("horovod", "0.28.1", "cpu_mpi_openmpi_h0a7ad20_10", False),
        ("horovod", "0.28.1", "cuda_mpi_mpich_h0a7ad20_10", False),
        ("tensorflow", "2.18.1", "cpu_py311h0123456_0", True),
        ("tensorflow", "2.18.0", "cuda120py311h0123456_0", False),
        ("tensorflow", "2.19.0", "cpu_py311h0123456_0", False),
        ("python", "3.11.14", "h0123456_0", True),
    ],
)
def test_conda_takes_these_builds_and_not_those(rattler, name, version, build, taken):
    assert takes(rattler, pin(name), version, build) == taken


@pytest.mark.parametrize(
    ("name", "version", "build"),
    [
        ("horovod", "0.28.1", "cuda_mpi_mpich_h0a7ad20_10"),
        ("tensorflow", "2.18.0", "cuda120py311h0123456_0"),
    ],
)
def test_a_gpu_sites_lines_are_made_as_the_file_says(rattler, name, version, build):
    assert takes(rattler, pin(name).replace("cpu", "cuda"), version, build)


def test_a_sites_own_mpich_is_of_the_channel_that_has_it(rattler):
    """conda-forge moved the builds external_* there in January 2026."""
    (line,) = re.findall(r"(\S+) for mpich=4.3", (ROOT / "environment.yml").read_text())
    spec = rattler.MatchSpec(line)
    assert spec.channel.name == "conda-forge/label/mpi-external"
    assert takes(rattler, line.rpartition("::")[2], "4.3.2", "h0123456_0")


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def set_up(tmp_path: Path, without: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs the set-up into an empty folder, with a PATH that lacks one tool."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("bash", "cat", "cksum", "dirname", "env", "g++", "head", "make", "rm", "sed"):
        path = shutil.which(tool)
        if tool != without and path:
            (tools / tool).symlink_to(path)
    environment = {"PATH": str(tools), "VENV": str(tmp_path / "venv"), **variables}
    return subprocess.run(
        ["bash", str(SCRIPT)], env=environment, capture_output=True, text=True, timeout=60
    )


@pytest.mark.parametrize("tool", ["g++", "make"])
def test_a_missing_tool_is_told_with_its_remedy(tmp_path, tool):
    result = set_up(tmp_path, without=tool, PYTHON=sys.executable)
    assert result.returncode == 1
    assert f"no {tool} on PATH" in result.stderr
    assert "apt-get install build-essential" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "venv").exists()


def test_a_wrong_python_is_told_with_its_remedy(tmp_path):
    # Stands for Python 3.9: the version test prints nothing.
    old = executable(tmp_path / "python3.9", '#!/bin/sh\n[ "$1" = -c ] || echo "Python 3.9.18"\n')
    result = set_up(tmp_path, PYTHON=str(old))
    assert result.returncode == 1
    assert "Python 3.9.18" in result.stderr
    assert "needs Python 3.11 or 3.12" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_no_python_at_all_is_told_with_its_remedy(tmp_path):
    result = set_up(tmp_path)
    assert result.returncode == 1
    assert "no Python 3.11 or 3.12 on PATH" in result.stderr


def test_a_folder_that_is_no_environment_is_not_removed(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "thesis.tex").write_text("years of work")
    result = set_up(tmp_path, PYTHON=sys.executable)
    assert result.returncode == 1
    assert "is not a virtual environment" in result.stderr
    assert (tmp_path / "venv" / "thesis.tex").exists()


def check_horovod(packages: Path) -> subprocess.CompletedProcess[str]:
    """Runs the check with a Horovod of the test's own before the installed one."""
    environment = {**os.environ, "PYTHONPATH": str(packages)}
    return subprocess.run(
        [sys.executable, str(CHECK), "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def fake_horovod(folder: Path, tensorflow: str) -> Path:
    (folder / "horovod").mkdir()
    (folder / "horovod" / "__init__.py").touch()
    (folder / "horovod" / "metadata.json").write_text(f'{{"tensorflow": "{tensorflow}"}}')
    return folder


def test_a_horovod_for_another_tensorflow_is_told(tmp_path):
    result = check_horovod(fake_horovod(tmp_path, "2.15.1"))
    assert result.returncode == 1
    installed = locked("3.11")["tensorflow-cpu"]
    expected = f"Horovod was built for TensorFlow 2.15.1, but {installed} is installed."
    assert result.stdout.strip() == expected


def test_a_horovod_that_cannot_be_imported_is_told(tmp_path):
    packages = fake_horovod(tmp_path, locked("3.11")["tensorflow-cpu"])
    (packages / "horovod" / "tensorflow.py").write_text("raise ImportError('undefined symbol')")
    result = check_horovod(packages)
    assert result.returncode == 1
    assert "import horovod.tensorflow fails: ImportError: undefined symbol." in result.stdout


# A Horovod that counts one rank, and was built with what BUILT says.
FAKE = """
import os
Sum = None
init = lambda: None
size = lambda: 1
rank = local_rank = lambda: 0
allreduce = lambda tensor, op: tensor
mpi_built = lambda: "mpi" in os.environ["BUILT"]
gloo_built = lambda: "gloo" in os.environ["BUILT"]
nccl_built = lambda: "nccl" in os.environ["BUILT"]
"""
UNDER_HOROVODRUN = {"HOROVOD_RANK": "0"}
PROMISED = {"BNN_GPUS": "1"}
# Built with, the rank's variables, with --gloo, and what is said.
CASES = [
    ("mpi", {}, False, "usable"),  # as the sites build it, whose launchers are their own
    ("mpi", UNDER_HOROVODRUN, False, "Horovod was built without Gloo."),
    ("mpi", {}, True, "Horovod was built without Gloo."),
    ("gloo", UNDER_HOROVODRUN, False, "usable"),
    ("gloo", {}, False, "Horovod was built without MPI."),
    ("mpi", PROMISED, False, "Horovod was built without NCCL."),
    ("mpi nccl", PROMISED, False, "BNN_GPUS = 1: the job script gives each rank a GPU"),
]
ASK = """
import os, sys
sys.path.insert(0, {folder!r})
import check_horovod
for built, variables, gloo, _ in {cases!r}:
    os.environ.update(variables, BUILT=built)
    try:
        check_horovod.check(1, gloo)
        print("usable")
    except check_horovod.Unusable as error:
        print(error)
    for name in variables:
        del os.environ[name]
"""


def test_the_check_asks_for_what_the_launcher_and_the_site_need(tmp_path):
    """MPI, or Gloo under horovodrun alone; NCCL and a GPU where the job script promises one."""
    packages = fake_horovod(tmp_path, locked("3.11")["tensorflow-cpu"])
    (packages / "horovod" / "tensorflow.py").write_text(FAKE)
    environ = {k: v for k, v in os.environ.items() if k not in (*UNDER_HOROVODRUN, *PROMISED)}
    done = subprocess.run(
        [sys.executable, "-c", ASK.format(folder=str(CHECK.parent), cases=CASES)],
        env=environ | {"PYTHONPATH": os.pathsep.join([str(packages), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    for said, case in zip(done.stdout.splitlines(), CASES, strict=True):
        assert said.startswith(case[-1]), case


def test_a_missing_cuda_compiler_is_told_with_its_remedy(tmp_path):
    result = set_up(tmp_path, PYTHON=sys.executable, CUDA="1")
    assert result.returncode == 1
    assert "no nvcc of CUDA 12" in result.stderr
    assert "load the site's CUDA 12 module, or set CUDA_HOME" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "venv").exists()


def test_the_locked_three_and_those_of_aurora_are_within_pyprojects_ranges():
    """TensorFlow, tf-keras and TFP belong together, and pip does not know it."""
    ranges = {
        Requirement(line).name: Requirement(line).specifier for line in PROJECT["dependencies"]
    }
    auroras = {"tensorflow": "2.15.1", "tf-keras": "2.15.1", "tensorflow-probability": "0.23.0"}
    extra = {Requirement(line).name: Requirement(line).specifier for line in EXTRAS["tf215"]}
    assert set(extra) == set(auroras)
    lock = locked("3.11")
    lock["tensorflow"] = lock["tensorflow-cpu"]
    for name, version in auroras.items():
        assert ranges[name].contains(version)
        assert ranges[name].contains(lock[name])
        assert extra[name].contains(version)
        assert not extra[name].contains(lock[name])
