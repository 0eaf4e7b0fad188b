"""No number of a result stands in the text by itself: it is made of a table, or says its source.

What counts as such a number is a decimal or a percentage in README.md, in the READMEs of notebooks
and figures, and in the notebooks' text, outside of what is made (`<!-- made: … -->`), of code (a
setting is written as code), of formulas, and of what was expected before it was measured.
figures/quoted.csv has a row for each that is left: what it is, and where it is from. Where that is
a table of figures/, the number must be in it.
"""

import itertools
import json
import re

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT

QUOTED = pd.read_csv(ROOT / "figures" / "quoted.csv", dtype=str, keep_default_na=False)
READMES = [ROOT / "README.md", ROOT / "notebooks/README.md"]
READMES += sorted((ROOT / "figures").glob("*/README.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FILES = [str(path.relative_to(ROOT)) for path in (*READMES, *NOTEBOOKS)]
NO_RESULT = re.compile(
    r"<!-- made: \w+ -->.*?<!-- end -->"
    r"|```.*?```|`[^`]*`"  # code
    r"|\$\$.*?\$\$|\$[^$]*\$"  # formulas
    r"|https?://\S+|\]\([^)]*\)|arXiv [\d.]+|Apache-2\.0|Python [\d.]+(?: or [\d.]+)?"
    r"|^#+ [^\n]*(?:expect|[Pp]redict)[^\n]*\n(?:(?!#+ )[^\n]*\n)*",  # what was said beforehand
    re.DOTALL | re.MULTILINE,
)
NUMBER = re.compile(r"(?<![\w.,])(?:\d+\.\d+|\.\d+|\d+(?= %))(?: %)?(?![\w]|\.\d)")
LEVEL = "95 %"  # of every interval


def numbers(text):
    """The numbers of results in a text, as they are written there."""
    return set(NUMBER.findall(NO_RESULT.sub(" ", text))) - {LEVEL}


def read(name):
    text = (ROOT / name).read_text()
    if not name.endswith(".ipynb"):
        return text
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
    return "\n\n".join("".join(cell["source"]) for cell in cells) + "\n"


def holds(table, number):
    """Whether a number of a table is written so, at as many digits."""
    values = table.select_dtypes(float).to_numpy().ravel()
    digits = number.removesuffix(" %")
    scale = 100 if number != digits else 1
    places = len(digits.partition(".")[2])
    return bool(np.isclose(np.round(values * scale, places), float(digits), atol=1e-9).any())


@pytest.mark.parametrize("name", FILES)
def test_every_number_is_made_or_says_where_it_is_from(name):
    told = QUOTED.number[QUOTED.file == name]
    assert sorted(told) == sorted(numbers(read(name))), (
        f"{name}: make it of a table (jobs/local/readme.py), or give it a row in figures/quoted.csv"
    )


@pytest.mark.parametrize(
    "row", list(QUOTED.itertuples()), ids=lambda row: f"{row.file}:{row.number}"
)
def test_a_quoted_number_has_a_source_that_holds_it(row):
    assert row.what
    assert row.source
    path = row.source.removeprefix("setting: ")
    if path != row.source:
        assert (ROOT / path).is_file()
    elif path.startswith("figures/"):
        assert holds(pd.read_csv(ROOT / path), row.number)


def test_what_is_a_number_of_a_result():
    text = """# Title\nAn error of 0.25 and 12 % ± .5 after 10 epochs of 54,000 images [0.1, −0.7].
    The rate `0.003`, $x = 0.4$, version 0.1.3, arXiv 1506.02557, <!-- made: x -->0.9<!-- end -->,
    a 95 % interval.\n## What we expect\nAbout 0.33.\n\nOr 0.44.\n## Found\nIt is 0.55.\n"""
    assert numbers(text) == {"0.25", "12 %", ".5", "0.1", "0.7", "0.55"}


def test_a_table_holds_a_number_as_it_is_rounded():
    table = pd.DataFrame({"name": ["a", "b"], "share": [0.1249, 6.0]})
    for number, there in (("0.12", True), ("0.125", True), ("12 %", True), ("6.0", True)):
        assert holds(table, number) is there
    assert not any(itertools.starmap(holds, ((table, "0.13"), (table, "13 %"), (table, "0.120"))))
