"""Apptainer's definition of the image, from its Dockerfile; and the Dockerfile's steps in a chroot.

    python -m jobs.container.definition                  # writes bnnlib.def
    python -m jobs.container.definition --rehearse DIR   # as root: DIR holds a clean Debian

A clean Debian is what `debootstrap --variant=minbase bookworm DIR` makes; mount /proc, /sys and
/dev in it, which a container has, too: without them MPI's ranks find no one. The rehearsal
shows that the steps run and that Horovod works where nothing else is installed; it shows nothing of
Docker or of Apptainer.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TAKEN = ("FROM", "RUN", "COPY", "ENV")


def steps(dockerfile: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions with their words, in order, lines that are continued joined.

    Raises:
        ValueError: an instruction that has no counterpart here.
    """
    lines = [line for line in dockerfile.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    found = []
    for line in filter(str.strip, joined.splitlines()):
        name, _, words = line.strip().partition(" ")
        if name not in TAKEN:
            raise ValueError(f"{name}: expected one of {', '.join(TAKEN)}; add it to {__name__}")
        found.append((name, re.sub(r"\s+", " ", words.strip())))
    return found


def copies(words: str) -> list[tuple[str, str]]:
    """What a COPY brings, each with the folder that it lies in afterwards.

    COPY puts a file into the folder, but of a folder only what it holds; Apptainer's `%files` and
    `cp` put both into it.

    Raises:
        ValueError: a target that is no folder, or one that would give a copied folder another name.
    """
    *sources, target = words.split()
    if not target.endswith("/"):
        raise ValueError(f"COPY {words}: expected a folder that ends in / as the target")
    found = []
    for source in sources:
        into = target
        if (ROOT / source).is_dir():
            if Path(target).name != Path(source).name:
                raise ValueError(f"COPY {words}: expected a target that ends in {source}/")
            into = f"{Path(target).parent}/"
        found.append((source, into))
    return found


def definition(dockerfile: str) -> str:
    """The text of bnnlib.def: the same base, files, steps and variables."""
    sections: dict[str, list[str]] = {"files": [], "post": [], "environment": []}
    base = ""
    for name, words in steps(dockerfile):
        if name == "FROM":
            base = words
        elif name == "RUN":
            sections["post"].append(f"({words}) || exit 1")
        elif name == "COPY":
            sections["files"] += [f"{source} {into}" for source, into in copies(words)]
        else:
            sections["environment"].append(f"export {words}")
    text = (
        "# Made from Dockerfile by `python -m jobs.container.definition`: change that one.\n"
        f"Bootstrap: docker\nFrom: {base}\n"
    )
    for section, lines in sections.items():
        text += f"\n%{section}\n" + "".join(f"    {line}\n" for line in lines)
    return text


def rehearse(dockerfile: str, root: Path) -> None:
    """Does the steps, each in a shell of its own, in the clean Debian `root`.

    Raises:
        subprocess.CalledProcessError: a step fails.
    """
    variables: list[str] = []
    for name, words in steps(dockerfile):
        print(name, words, flush=True)
        if name == "ENV":
            variables.append(f"export {words};")
        elif name == "COPY":
            for source, into in copies(words):
                target = root / into.lstrip("/")
                target.mkdir(parents=True, exist_ok=True)
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, target / Path(source).name, dirs_exist_ok=True)
                else:
                    shutil.copy(ROOT / source, target)
        elif name == "RUN":
            shell = ["/bin/sh", "-c", " ".join([*variables, words])]
            subprocess.run(["chroot", str(root), *shell], check=True)
    print("in the chroot:", shlex.join(["chroot", str(root), "/bin/sh"]))


def main() -> None:
    """Writes the definition, or rehearses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rehearse", type=Path, metavar="DIR", help="do the steps in this chroot")
    arguments = parser.parse_args()
    dockerfile = (HERE / "Dockerfile").read_text()
    if arguments.rehearse:
        rehearse(dockerfile, arguments.rehearse)
    else:
        (HERE / "bnnlib.def").write_text(definition(dockerfile))


if __name__ == "__main__":
    main()
