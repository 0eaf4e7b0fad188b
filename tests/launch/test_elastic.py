"""A run that outlives the death of a rank, under the real horovodrun with two hosts of one slot.

Both names are this machine's, so that Horovod needs no ssh between them.
"""

import re

import pytest

from bnnlib.launch import elastic
from bnnlib.launch.elastic import Before
from bnnlib.record.logs import read_steps
from bnnlib.record.schema import read_record
from tests.end_to_end.test_end_to_end import TINY


@pytest.mark.ranks
@pytest.mark.long
@pytest.mark.timeout(300)
def test_a_killed_rank_does_not_end_the_run_and_the_record_says_so(launch, tmp_path):
    """Rank 0 dies, which writes the record and holds its lock: the other takes both over."""
    run, hosts = tmp_path / "run", tmp_path / "hosts.sh"
    hosts.write_text("#!/bin/sh\necho localhost:1\necho 127.0.0.1:1\n")
    hosts.chmod(0o755)
    steps = 3000
    words = ["horovodrun", "-np", "2", "--min-np", "1", "--max-np", "2"]
    words += ["--host-discovery-script", hosts, "python", "-m", "bnnlib", "train", "-f", TINY]
    words += ["-p", "model", "CNN_FC", "-p", "steps", steps, "-p", "checkpoint_steps", "20"]
    words += ["-p", "run_dir", run]
    script = f"""
        {" ".join(map(str, words))} &
        for i in $(seq 1200); do ls {run}/checkpoints/*.npz && break; sleep 0.1; done
        kill -KILL $(grep -o '^pid=[0-9]*' {run}/run.lock | cut -d = -f 2) && echo killed
        wait $!
    """
    done = launch("bash", "-c", script, timeout=280)
    assert "killed" in done.stdout.splitlines()
    assert done.returncode == 0, done.stdout + done.stderr

    record = read_record(run)
    assert (record["status"], record["ranks"], record["error"]) == ("finished", 1, None)
    assert [event["event"] for event in record["history"]] == [
        *("ranks lost", "ranks changed", "continued"),
    ]
    lost, _, continued = (event["what"] for event in record["history"])
    assert re.fullmatch(
        r"rank 0 \((localhost|127\.0\.0\.1)\[0\]\) of 2 lost after step \d+; "
        r"goes on with 1 rank\(s\)",
        lost,
    )
    found = re.fullmatch(r"from step (\d+)", continued)
    assert found is not None
    assert 20 <= int(found[1]) < steps
    lines = [line.step for line in read_steps(run)]
    assert lines == sorted(set(lines))
    assert lines[-1] == steps
    assert (run / "predictions.npz").exists()
    assert not (run / "run.lock").exists()


def test_the_history_names_lost_and_joined_ranks(tmp_path):
    before = Before(("a[0]", "b[0]", "c[0]"), 40, "runs/x")
    # c keeps its rank's order, and a host that was resurrected starts a new worker on b.
    found = [("a[0]", before), ("c[0]", before), ("b[0]", None)]
    assert elastic._events(found, tmp_path) == [
        (
            "ranks lost",
            "rank 1 (b[0]) of 3 lost after step 40; goes on with 3 rank(s), newly started "
            "rank 2 (b[0])",
        )
    ]
    assert elastic._events([(name, before) for name in before.workers], tmp_path) == [
        ("connection lost", "of 3 ranks, none of which is gone, after step 40; they go on")
    ]
