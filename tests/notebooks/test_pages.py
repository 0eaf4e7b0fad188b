"""The site: pages of the executed notebooks, which a browser reads without the network."""

import base64
import itertools

import nbformat
import pytest
from nbformat import v4

from jobs.local.pages import Executed, build
from tests.conftest import ROOT
from tests.notebooks.pages_read import fetched, links

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PIXEL = base64.b64encode(b"a picture").decode()


def shown(**data):
    """An output of a cell, in several forms of which a page shows the first that it may."""
    return v4.new_output("display_data", {key.replace("__", "/"): x for key, x in data.items()})


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Pages of all notebooks as they are stored, one of them with outputs of every kind."""
    folder = tmp_path_factory.mktemp("site")
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    outputs = [
        shown(image__png=PIXEL, text__plain="<Figure>"),
        shown(text__markdown="**Found** at $\\tfrac{R}{2}$ ranks", text__plain="<Markdown>"),
        shown(text__html="<table><tr><td>0.95</td></tr></table>", text__plain="a table"),
        v4.new_output("display_data", widget | {"text/plain": "bar of a widget"}),
        v4.new_output("display_data", {"application/javascript": "run()"}),
    ]
    cells = [v4.new_markdown_cell("# 1 One"), v4.new_code_cell("1 + 1", outputs=outputs)]
    cells.append(v4.new_markdown_cell("See [the next](02_calibration.ipynb) and [a file](x.csv)."))
    state = {"version_major": 2, "version_minor": 0, "state": {"x": {"model_name": "Button"}}}
    metadata = {"widgets": {"application/vnd.jupyter.widget-state+json": state}}
    notebook = v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.write(notebook, folder / "01_train.ipynb")
    done = {path.name: Executed(path, "As it is *stored*.") for path in NOTEBOOKS}
    done["01_train.ipynb"] = Executed(folder / "01_train.ipynb", "On synthetic images.")
    return build(done, folder / "site")


def test_no_page_has_a_script_or_fetches_anything_from_elsewhere(site):
    assert len(site) == len(NOTEBOOKS) + 1
    for page in site:
        assert [at for at in fetched(page) if not (page.parent / at).is_file()] == []
    assert fetched(site[0])  # the README's figure


def test_every_link_within_the_site_leads_somewhere(site):
    for page in site:
        near = [link for link in links(page) if not link.startswith(("https://", "#"))]
        assert [link for link in near if not (page.parent / link.split("#")[0]).is_file()] == []


def test_the_index_has_the_readmes_opening_and_every_notebook_in_reading_order(site):
    pages = [page.name for page in site[1:]]
    rows = [link for link in dict.fromkeys(links(site[0])) if link in pages]
    assert rows == pages[: len(rows)]
    assert len(rows) >= 8
    text = site[0].read_text()
    assert "<h1>bnnlib: " in text
    assert "make study" not in text  # what leads to it is left out as well
    assert "One command" not in text
    for before, after in itertools.pairwise(site[1:]):
        assert after.name in links(before)
        assert before.name in links(after)


def test_a_page_says_how_it_was_executed_and_shows_its_outputs(site):
    (page,) = (page for page in site if page.name == "01_train.html")
    text = page.read_text()
    assert '<div class="told"><p>On synthetic images.</p>' in text
    assert f"data:image/png;base64,{PIXEL}" in text
    assert "<strong>Found</strong>" in text
    assert "<td>0.95</td>" in text
    assert "bar of a widget" in text
    assert '<a href="02_calibration.html">the next</a> and a file.' in text
    assert not any(word in text for word in ("&lt;Figure&gt;", "model_id", "run()"))


def test_formulas_are_pictures_that_say_their_tex(site):
    (page,) = (page for page in site if page.name == "01_train.html")
    assert 'aria-label="\\frac{R}{2}"' in page.read_text()
    (page,) = (page for page in site if page.name == "03_scaling.html")
    assert page.read_text().count('role="img"') == 1
    assert not any("$$" in page.read_text() for page in site)


def test_a_row_of_the_contents_without_its_notebook_is_refused(tmp_path):
    done = {path.name: Executed(path, "") for path in NOTEBOOKS if path.name != "05_draws.ipynb"}
    with pytest.raises(ValueError, match="05_draws"):
        build(done, tmp_path / "site")


def test_a_folder_that_holds_no_site_is_left_as_it_is(tmp_path):
    root, target = tmp_path / "root", tmp_path / "site"
    (root / "notebooks").mkdir(parents=True)
    (root / "README.md").write_text("# Title")
    (root / "notebooks" / "README.md").write_text("[05_draws](05_draws.ipynb)")
    done = {"05_draws.ipynb": Executed(ROOT / "notebooks" / "05_draws.ipynb", "")}
    target.mkdir()
    (target / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="choose another"):
        build(done, target, root)
    (target / "mine.txt").rename(tmp_path / "mine.txt")
    build(done, target, root)
    (target / "of_an_older_site.html").write_text("")
    build(done, target, root)
    assert sorted(path.name for path in target.iterdir()) == ["05_draws.html", "index.html"]
