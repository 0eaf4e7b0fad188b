"""Analysis reads records in a process that cannot import TensorFlow, TFP, Keras or Horovod."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
# As on a service node, where these are not installed or cannot be loaded.
BLOCK = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        packages = ("tensorflow", "tensorflow_probability", "tf_keras", "keras", "horovod")
        if name.split(".")[0] in packages:
            raise ImportError(f"{name} cannot be imported here")

sys.meta_path.insert(0, Blocked())
"""


def without_tensorflow(code, cwd, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + textwrap.dedent(code), *map(str, arguments)],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_blocker_blocks(tmp_path):
    code = """
    try:
        import tensorflow
    except ImportError as error:
        print(error)
    """
    assert without_tensorflow(code, tmp_path) == "tensorflow cannot be imported here\n"


def test_every_module_that_reads_records_is_imported(tmp_path):
    code = """
    import importlib, pkgutil
    for name in ("metrics", "data", "record", "analysis"):
        package = importlib.import_module(f"bnnlib.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"bnnlib.{name}."):
            importlib.import_module(module.name)
            print(module.name)
    """
    names = without_tensorflow(code, tmp_path).split()
    assert {"bnnlib.record.schema", "bnnlib.analysis.scaling.findings"} <= set(names)


def test_a_group_is_printed_tabulated_drawn_and_told(runs):
    code = """
    import sys
    from bnnlib.analysis import figures, findings, gallery, listing, tables
    listing.print_table(sys.argv[1])
    test = tables.Group(sys.argv[1]).predictions()
    bins = tables.reliability(test)
    origin = gallery.origin(tables.Group(sys.argv[1]).runs, "notebook", "command")
    print(gallery.save(figures.reliability_diagrams(bins), bins, "figures", "bins", origin))
    print(findings.reliability(bins))
    """
    out = without_tensorflow(code, runs.parent, runs)
    assert len([line for line in out.splitlines() if "finished" in line]) == 4
    assert (runs.parent / "figures" / "bins.png").stat().st_size > 10_000
    assert "BNN_FC_flip" in out
