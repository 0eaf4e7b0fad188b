"""A run's record says where the seconds before its first step went."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnnlib.record import startup

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fresh(monkeypatch):
    monkeypatch.setattr(startup, "_ends", [])
    monkeypatch.setattr(startup, "_begun", [])


def test_stages_follow_one_another_and_only_their_first_end_counts(fresh):
    startup.begin()
    startup.reached("horovod")  # before the imports: of another start
    for stage in startup.STAGES:
        time.sleep(0.02)
        startup.reached(stage)
    first = startup.seconds()
    startup.reached("data")
    startup.reached("trace")
    assert startup.seconds() == first
    assert list(first) == list(startup.STAGES)
    assert all(seconds >= 0.02 for seconds in first.values())


def test_a_kernel_that_waits_for_its_reader_has_none(fresh):
    for stage in startup.STAGES:
        startup.reached(stage)
    assert startup.seconds() is None


def test_the_imports_count_from_the_process_start():
    script = (
        "import time; time.sleep(0.5); from bnnlib.record import startup as s; s.begin(); "
        "[s.reached(name) for name in s.STAGES]; print(s.seconds()['imports'])"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    assert 0.5 <= float(done.stdout) <= time.monotonic() - started + 0.02  # a tick of the clock


def test_a_run_records_them(tmp_path):
    values = {"model": "CNN_FC", "dataset": "tiny", "steps": 1, "run_dir": str(tmp_path)}
    words = [sys.executable, str(ROOT / "tests" / "faults" / "train.py"), json.dumps(values)]
    subprocess.run(words, cwd=ROOT, check=True)
    found = json.loads((tmp_path / "run.json").read_text())["startup_seconds"]
    assert list(found) == list(startup.STAGES)
    assert found["imports"] > 0.5
    assert found["trace"] > 0.05
