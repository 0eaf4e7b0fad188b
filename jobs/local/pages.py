"""Makes the site: every notebook, executed, as pages that a browser reads without the network.

    python -m jobs.local.pages [--out site]        `make site`

The questions' notebooks are executed on what git keeps. The first five need records of runs: those
of `make study` where it has been made, else those of the same study on a few synthetic images,
which takes some minutes, and of which each page says that its numbers mean nothing. Pages have no
script; their pictures, formulas and style are within them.
"""

from __future__ import annotations

import argparse
import dataclasses
import html
import io
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import yaml
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# What a page may show of an output, the first that there is: no widget and no JavaScript.
SHOWN = ["text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg", "text/plain"]


@dataclasses.dataclass(frozen=True)
class Executed:
    """An executed notebook, and what its page says of the execution."""

    path: Path
    told: str


# --- Execution -----------------------------------------------------------------------------------


def execute(root: Path, folder: Path) -> dict[str, Executed]:
    """Executes all notebooks, or takes the copies that a study has left.

    Args:
        root: the repository.
        folder: of it, for the copies that are made here, and for what they write.

    Returns:
        Each by its notebook's name.

    Raises:
        subprocess.CalledProcessError: a notebook or the study failed; its output is on the screen.
    """
    group, told = "digits", "Shows the runs of `make study`: real handwritten digits, one seed."
    if not (root / "runs" / group / "02_calibration.ipynb").exists():
        group = "tiny"
        told = (
            "Shows runs on a few synthetic images, so that the notebook can be seen: **their "
            "numbers mean nothing**. `make study`, and `make site` after it, put real digits there."
        )
        subprocess.run([root / "jobs/local/study.sh", group], cwd=root, check=True)
    scaling = "scaling_tiny" if group == "tiny" else "scaling_short"
    if (root / "runs/scaling/03_scaling.ipynb").exists():
        scaling = "scaling"
    run = f"runs/{group}/BNN_FC_flip"
    done = {
        "01_train.ipynb": Executed(root / run / "train.ipynb", told),
        "02_calibration.ipynb": Executed(root / f"runs/{group}/02_calibration.ipynb", told),
        "03_scaling.ipynb": Executed(root / f"runs/{scaling}/03_scaling.ipynb", told),
    }
    place = folder.relative_to(root)
    parameters = {
        "04_interactive.ipynb": {"run_dir": str(place / "first")},
        "05_draws.ipynb": {"run": run, "figures": str(place / "draws")},
    }
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        if notebook.name not in done:
            copy, given = folder / notebook.name, parameters.get(notebook.name, {})
            words = ["--log-level", "WARNING", "--no-progress-bar", "-y", yaml.safe_dump(given)]
            # Without a kernel's start, but where cells await something, as a kernel's do.
            words += ["--engine", "spmd"] if notebook.name != "04_interactive.ipynb" else []
            subprocess.run([BIN / "papermill", notebook, copy, *words], cwd=root, check=True)
            own = "Executed for this page, with the parameters that it shows."
            done[notebook.name] = Executed(copy, told if "run" in given else own)
    return done


# --- Pages ---------------------------------------------------------------------------------------


def build(done: Mapping[str, Executed], target: Path, root: Path = ROOT) -> list[Path]:
    """Writes a page a notebook, in the reading order of notebooks/README.md, and the index.

    A notebook that has no row there yet comes last.

    Args:
        done: of :func:`execute`.
        target: the folder of the site; what it held before is replaced.
        root: the repository, whose READMEs make the index.

    Returns:
        The pages, the index first.

    Raises:
        ValueError: notebooks/README.md names a notebook that was not executed.
        FileExistsError: `target` holds something that is no site.
    """
    readme, contents = ((root / at).read_text() for at in ("README.md", "notebooks/README.md"))
    order = list(dict.fromkeys([*re.findall(r"\]\((\w+\.ipynb)\)", contents), *sorted(done)]))
    if lost := set(order) - set(done):
        raise ValueError(f"notebooks/README.md names {sorted(lost)}, which were not executed")
    index = target / "index.html"
    if target.exists() and any(target.iterdir()) and not index.exists():
        raise FileExistsError(f"{target} holds no site: expected a new folder, choose another")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    names = {name: f"{Path(name).stem}.html" for name in order}
    opening = readme.partition("\n```")[0].rpartition("\n\n")[0]  # what leads to a command stays
    body = _markdown(opening) + _markdown(contents)
    exporter = _Exporter(template_name="basic")
    index.write_text(_page("bnnlib", [], _local(body, root, target)))
    made = [index]
    for place, name in enumerate(order):
        links = [("index.html", "Contents")]
        if place:
            links.append((names[order[place - 1]], f"← {order[place - 1].partition('.')[0]}"))
        if place + 1 < len(order):
            links.append((names[order[place + 1]], f"{order[place + 1].partition('.')[0]} →"))
        notebook = nbformat.read(done[name].path, as_version=4)
        notebook.metadata.pop("widgets", None)  # their state, for a program that pages lack
        shown, _ = exporter.from_notebook_node(notebook)
        told = f'<div class="told">{_markdown(done[name].told)}</div>'
        page = target / names[name]
        page.write_text(_page(name, links, told + _local(shown, root / "notebooks", target)))
        made.append(page)
    return made


class _Renderer(IPythonRenderer):
    """Markdown whose formulas are pictures: no page fetches a program to draw them."""

    def block_math(self, body: str) -> str:
        return f'<span class="formula">{_formula(body)}</span>'

    def inline_math(self, body: str) -> str:
        return _formula(body)


def _markdown(text: str, **options: Any) -> str:
    renderer = _Renderer(escape=False, exclude_anchor_links=True, **options)
    return MarkdownWithMath(renderer=renderer).render(text)


class _Exporter(HTMLExporter):
    """A notebook's cells as HTML, without a frame, a script or a style."""

    def __init__(self, **options: Any) -> None:
        super().__init__(exclude_input_prompt=True, exclude_output_prompt=True, **options)
        self.config.NbConvertBase.display_data_priority = SHOWN

    def default_filters(self) -> Any:
        yield from super().default_filters()
        yield ("markdown2html", lambda source: _markdown(source))


def _formula(tex: str) -> str:
    """TeX as a picture of outlines, which needs no font; a reader's program hears the TeX."""
    # matplotlib has one size of fractions.
    words = " ".join(html.unescape(tex).split()).replace(r"\tfrac", r"\frac")
    picture = io.BytesIO()
    with mpl.rc_context({"mathtext.fontset": "stix", "svg.fonttype": "path", "svg.hashsalt": "f"}):
        depth = math_to_image(f"${words}$", picture, format="svg", prop=FontProperties(size=13))
    text = picture.getvalue().decode()
    svg = text[text.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    said = html.escape(words, quote=True)
    style = f"vertical-align:{-depth:.1f}pt"
    return svg.replace("<svg", f'<svg role="img" aria-label="{said}" style="{style}"', 1)


def _local(body: str, source: Path, target: Path) -> str:
    """Links to notebooks lead to their pages, pictures are taken along, other files lose theirs."""

    def picture(found: re.Match[str]) -> str:
        if re.match(r"(data|https?):", found[2]):
            return found[0]
        path = (source / found[2]).resolve()
        name = f"{path.parent.name}_{path.name}"
        shutil.copy(path, target / name)
        return f"{found[1]}{name}{found[3]}"

    def link(found: re.Match[str]) -> str:
        address, text = html.unescape(found[1]), found[2]
        if re.match(r"https?:|#", address):
            return found[0]
        page = Path(address.partition("#")[0])
        if page.suffix == ".ipynb":
            return f'<a href="{page.stem}.html">{text}</a>'
        return '<a href="#notebooks">' + text + "</a>" if page.name == "notebooks" else text

    body = re.sub(r'(<img [^>]*?src=")([^"]+)(")', picture, body)
    return re.sub(r'<a href="([^"]*)"[^>]*>(.*?)</a>', link, body, flags=re.DOTALL)


def _page(title: str, links: list[tuple[str, str]], body: str) -> str:
    nav = "".join(f'<a href="{address}">{html.escape(text)}</a>' for address, text in links)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<nav>{nav}</nav>
<main>
{body}
</main>
<nav>{nav}</nav>
</body>
</html>
"""


STYLE = """
body { margin: 0; font: 17px/1.55 system-ui, sans-serif; color: #1a1a1a; background: #fff; }
main, nav { max-width: 56rem; margin: 0 auto; padding: 0 1rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.5rem; padding: .7rem 1rem; }
a { color: #0b5394; }
h1 { line-height: 1.2; } h2 { margin-top: 2.2em; line-height: 1.25; }
img { max-width: 100%; height: auto; }
pre { margin: 0; font-size: .82rem; line-height: 1.45; overflow-x: auto; }
code { font-size: .88em; background: #f4f4f4; padding: .05em .2em; overflow-wrap: anywhere; }
.input { background: #f7f7f7; border-left: 3px solid #ccc; padding: .5rem .8rem; margin: 1rem 0; }
.k, .kn, .kc, .ow { color: #00508c; font-weight: 600; }
.c1, .cm { color: #5f6b6b; font-style: italic; }
.s1, .s2, .sa, .si, .sd { color: #8a3b00; }
.mi, .mf { color: #44662a; }
.output_area { margin: .8rem 0; overflow-x: auto; }
.output_stream pre { white-space: pre-wrap; overflow-wrap: anywhere; }
.output_stderr { color: #666; }
table { border-collapse: collapse; font-size: .88rem; }
main > table, .text_cell_render table { display: block; overflow-x: auto; }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; }
tr { border-bottom: 1px solid #ddd; }
.output_html td, .output_html th { text-align: right; white-space: nowrap; padding: .2rem .5rem; }
.told { background: #fff6dd; border-left: 3px solid #e0a800; padding: .1rem .8rem; }
.formula { display: block; overflow-x: auto; margin: 1rem 0; }
svg[role=img] { max-width: none; }
@media (max-width: 40rem) { /* pictures keep a size that can be read, and are moved instead */
  p:has(img) { overflow-x: auto; } p img { max-width: none; width: 52rem; }
  .output_area img { max-width: none; }
}
@media print { nav { display: none; } }
"""


def main() -> int:
    """Executes the notebooks and builds the site."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "site", help="(default: site)")
    target = parser.parse_args().out
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="site-", dir=ROOT / "runs") as folder:
        try:
            done = execute(ROOT, Path(folder))
            pages = build(done, target)
        except (subprocess.CalledProcessError, ValueError, OSError) as error:
            print(f"pages: {error}", file=sys.stderr)
            return 1
    size = sum(path.stat().st_size for path in target.iterdir())
    print(f"{len(pages)} pages, {size / 1e6:.1f} MB: {pages[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
