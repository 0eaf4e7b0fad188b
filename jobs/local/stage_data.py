"""Brings data sets to a cluster: downloads, checks, and writes the files that BNN_DATA wants.

    python jobs/local/stage_data.py /eagle/PROJECT/data mnist cifar10

Start it where there is a network: on a login node (where the site has a proxy, `https_proxy` names
it), or at home, and copy the files that it names. Sets out of distribution have no source that
could be checked here; it says which files they are and where they are published.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bnnlib.data import sources
from bnnlib.errors import BnnlibError
from bnnlib.record.files import write_npz


def stage(name: str, folder: Path) -> Path:
    """Writes `name`, verified, into `folder`; its file.

    Raises:
        DataError: the set is neither here nor can be downloaded, or is not the published one.
        RecordError: the file cannot be written.
    """
    file = folder / f"{name}.npz"
    write_npz(file, sources.canonical(name, sources.ARRAY_KEYS))
    return file


def main() -> int:
    """Stages the sets of the command line; exit code 1 where one is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="for BNN_DATA; made if missing")
    parser.add_argument("names", nargs="+", choices=sorted(sources.DOWNLOADS))
    arguments = parser.parse_args()
    code = 0
    for name in arguments.names:
        try:
            file = stage(name, arguments.folder)
        except BnnlibError as error:
            print(f"{name}: {error}", file=sys.stderr)
            code = 1
            continue
        print(f"{file}: verified")
    if code == 0:
        print(f"in the jobs: export BNN_DATA={arguments.folder.resolve()}")
    return code


if __name__ == "__main__":
    sys.exit(main())
