"""Is the installed Horovod usable here? One sentence and exit code 1 if it is not.

Run alone or under mpiexec: `python check_horovod.py RANKS`.
"""

import importlib.util
import json
import os
import sys
from importlib import metadata
from pathlib import Path

# TensorFlow's notes about the graphics cards that are not there would bury the one sentence.
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"


def check(ranks: int) -> None:
    """Ends the process with one sentence at the first thing that does not hold.

    Args:
      ranks: how many ranks the launcher was asked for.
    """
    spec = importlib.util.find_spec("horovod")
    if spec is None or spec.origin is None:
        sys.exit("Horovod is not installed.")
    # Horovod's build writes down what it was compiled against.
    record = Path(spec.origin).with_name("metadata.json")
    built_for = json.loads(record.read_text()).get("tensorflow") if record.exists() else None
    installed = metadata.version("tensorflow")
    if built_for != installed:
        sys.exit(f"Horovod was built for TensorFlow {built_for}, but {installed} is installed.")
    try:
        import horovod.tensorflow as hvd
        import tensorflow as tf
    except Exception as error:  # a wrong binary can raise anything from here
        sys.exit(f"import horovod.tensorflow fails: {type(error).__name__}: {error}")
    for name, is_built in (("MPI", hvd.mpi_built()), ("Gloo", hvd.gloo_built())):
        if not is_built:
            sys.exit(f"Horovod was built without {name}.")
    hvd.init()
    if hvd.size() != ranks:
        sys.exit(f"{ranks} ranks were started, but Horovod counts {hvd.size()}.")
    total = float(hvd.allreduce(tf.constant(float(hvd.rank() + 1)), op=hvd.Sum))
    expected = ranks * (ranks + 1) / 2
    if total != expected:
        sys.exit(f"an allreduce of 1 to {ranks} gave {total}, not {expected}.")


if __name__ == "__main__":
    check(int(sys.argv[1]))
