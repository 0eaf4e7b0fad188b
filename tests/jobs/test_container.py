"""The image's two recipes say the same, bring all that its steps read, and pin nothing anew."""

import re
import subprocess

import pytest

from jobs.container import definition as recipes

DOCKERFILE = (recipes.HERE / "Dockerfile").read_text()
DEFINITION = (recipes.HERE / "bnnlib.def").read_text()


def test_apptainers_definition_is_made_from_the_dockerfile():
    assert recipes.definition(DOCKERFILE) == DEFINITION


def test_both_have_the_same_base_steps_files_and_variables():
    """By another route than the one that made the definition."""
    assert re.findall(r"^From: (.*)", DEFINITION, re.M) == re.findall(
        r"^FROM (.*)", DOCKERFILE, re.M
    )
    post = DEFINITION.split("%post")[1].split("%environment")[0]
    for words in ("apt-get install --yes --no-install-recommends", "jobs/local/environment.sh"):
        (line,) = [line for line in post.splitlines() if words in line]
        plain = " ".join(DOCKERFILE.replace("\\\n", " ").split())
        assert "RUN " + line.strip().removeprefix("(").removesuffix(") || exit 1") in plain
    checked = subprocess.run(["sh", "-n"], input=post, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr


def test_what_is_copied_is_there_and_is_what_the_steps_read():
    copied = [
        source
        for name, words in recipes.steps(DOCKERFILE)
        if name == "COPY"
        for source, _ in recipes.copies(words)
    ]
    assert all((recipes.ROOT / source).exists() for source in copied)
    script = (recipes.ROOT / "jobs/local/environment.sh").read_text()
    project = (recipes.ROOT / "pyproject.toml").read_text()
    read = {"requirements.lock", "pyproject.toml", *re.findall(r"\bjobs/\w+/\w+\.py", script)}
    read |= set(re.findall(r'^(?:readme = |license-files = \[)"([^"]+)"', project, re.M))
    assert len(read) == 6
    for path in read:
        assert any(path == one or path.startswith(f"{one}/") for one in copied), path


def test_no_version_but_debians_stands_in_the_recipe():
    assert re.findall(r"==|=\d+[.:]", DOCKERFILE) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("FROM debian\nADD https://a.b/c.tar /c/\n", "ADD: expected one of FROM, RUN, COPY, ENV"),
        ("FROM debian\nCOPY bnnlib /a/library/\n", "expected a target that ends in bnnlib/"),
        ("FROM debian\nCOPY LICENSE /a\n", "expected a folder that ends in /"),
    ],
)
def test_a_step_without_a_counterpart_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        recipes.definition(text)


def test_lines_are_joined_and_a_folder_is_copied_into_its_parent():
    text = "# x\nFROM debian\nRUN a && \\\n    # why\n    b\nCOPY LICENSE jobs/ /s/\nENV A=b\n"
    assert recipes.steps(text)[:2] == [("FROM", "debian"), ("RUN", "a && b")]
    assert recipes.copies("bnnlib /usr/src/bnnlib/") == [("bnnlib", "/usr/src/")]
    assert recipes.copies("LICENSE README.md /s/") == [("LICENSE", "/s/"), ("README.md", "/s/")]
