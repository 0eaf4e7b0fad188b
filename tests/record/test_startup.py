"""A run's record says where the seconds before its first step went."""

import json
import subprocess
import sys
import time
from pathlib import Path

from bnnlib.record.schema import read_record
from bnnlib.record.startup import STAGES, Clock

ROOT = Path(__file__).parents[2]


def test_stages_follow_one_another_and_only_their_first_end_counts():
    clock = Clock(time.time())
    clock.reached("horovod")  # before the imports: of another start
    for stage in STAGES:
        time.sleep(0.02)
        clock.reached(stage)
    first = clock.seconds()
    clock.reached("data")
    clock.reached("trace")
    assert clock.seconds() == first
    assert list(first) == list(STAGES)
    assert all(seconds >= 0.02 for seconds in first.values())


def test_the_next_run_of_a_process_has_its_own_start():
    clock = Clock(time.time() - 100)
    for stage in STAGES:
        clock.reached(stage)
    assert clock.seconds()["imports"] >= 100
    clock.restart()
    assert clock.seconds() is None
    for stage in STAGES:
        clock.reached(stage)
    assert sum(clock.seconds().values()) < 1


def test_a_kernel_that_waits_for_its_reader_has_none():
    clock = Clock()
    for stage in STAGES:
        clock.reached(stage)
    assert clock.seconds() is None
    clock.restart()
    assert clock.seconds() is None


def test_the_imports_count_from_the_process_start():
    script = (
        "import time; time.sleep(0.5); from bnnlib.record import startup as s; "
        "clock = s.Clock(s.process_start()); "
        "[clock.reached(name) for name in s.STAGES]; print(clock.seconds()['imports'])"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    assert 0.5 <= float(done.stdout) <= time.monotonic() - started + 0.02  # a tick of the clock


def test_a_run_records_them(tmp_path):
    values = {"model": "CNN_FC", "dataset": "tiny", "steps": 1, "run_dir": str(tmp_path)}
    words = [sys.executable, str(ROOT / "tests" / "faults" / "train.py"), json.dumps(values)]
    subprocess.run(words, cwd=ROOT, check=True)
    found = read_record(tmp_path)["startup_seconds"]
    assert list(found) == list(STAGES)
    assert found["imports"] > 0.5
    assert found["trace"] > 0.05
