"""A ladder and a profiled run in one start, for tests/end_to_end/test_two_hosts.py.

Usage: ``mpiexec … python tests/ranks/two_hosts.py <plan> <folder>``.
"""

import json
import sys
from pathlib import Path

from bnnlib import launcher
from bnnlib.launch import here as plan
from bnnlib.launch import ladder as message_ladder

if __name__ == "__main__":
    folder = Path(sys.argv[2])
    ladder = message_ladder.measure(sizes=(8, 262144), repeats=3, times=8)
    if launcher.rank() == 0:
        (folder / "ladder.json").write_text(json.dumps(ladder))
    plan.train_all(plan.read(sys.argv[1], folder))
