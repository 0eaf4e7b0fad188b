"""The parameters that papermill was given, and what the notebook's parameters cell says of them.

papermill imports this module while papermill itself is still being imported, so nothing of
papermill may be imported at the top of it.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import math
from typing import Any

from bnnlib.errors import ExperimentError
from bnnlib.experiment import PAPERMILLS_OWN
from bnnlib.parameters import parse


def unknown_parameters(nb: Any, kernel_name: str, input_path: str) -> str | None:
    """Says what is wrong with the parameters' names; papermill itself only warns of unknown ones.

    Args:
        nb: The notebook that papermill has put the parameters into.
        kernel_name: Its kernel's name.
        input_path: Where papermill read it from.

    Returns:
        A message that names each unknown parameter, the nearest known one, and the way to see all;
        None if all are known.
    """
    from papermill.utils import find_first_tagged_cell_index

    given = set(nb.metadata.papermill.get("parameters") or {})
    given -= set(PAPERMILLS_OWN)
    if not given:
        return None
    if find_first_tagged_cell_index(nb, "parameters") < 0:
        return (
            f"Parameters {sorted(given)} were given, but {input_path} has no cell tagged "
            f"`parameters` that says which it has: tag one"
        )
    known = known_parameters(nb, kernel_name)
    sentences = []
    for name in sorted(given - known):
        near = difflib.get_close_matches(name, known, n=1)
        sentences.append(
            f"Parameter {name!r} is unknown" + (f": did you mean {near[0]!r}?" if near else ".")
        )
    if not sentences:
        return None
    return " ".join([*sentences, f"All parameters: papermill --help-notebook {input_path}"])


def known_parameters(nb: Any, kernel_name: str) -> set[str]:
    """The names in the notebook's cell tagged `parameters`; none without one."""
    from papermill.translators import papermill_translators
    from papermill.utils import find_first_tagged_cell_index

    index = find_first_tagged_cell_index(nb, "parameters")
    if index < 0:
        return set()
    cell = nb.cells[index]
    translator = papermill_translators.find_translator(kernel_name, "python")
    # papermill gives up on a line with a second "=", for example in its comment.
    return {one.name for one in translator.inspect(cell)} | set(_declared(cell.source))


def as_typed(nb: Any, kernel_name: str) -> None:
    """Gives the notebook's text parameters back as they stand on papermill's command line.

    papermill makes a number of what looks like one: the folder 2024_11_27 would be 20241127. What
    the parameters cell declares as text, ``name: str = …``, stays as it was typed.
    """
    from papermill.translators import translate_parameters
    from papermill.utils import find_first_tagged_cell_index

    parameters = nb.metadata.papermill.get("parameters") or {}
    declared = find_first_tagged_cell_index(nb, "parameters")
    injected = find_first_tagged_cell_index(nb, "injected-parameters")
    if declared < 0 or injected < 0:
        return
    kinds = _declared(nb.cells[declared].source)
    typed = {
        name: text
        for name, text in _command_line().items()
        if kinds.get(name) == "str" and isinstance(text, str)
    }
    typed = {k: str(v) for k, v in typed.items() if not isinstance(parameters.get(k, ""), str)}
    if typed:
        parameters.update(typed)
        nb.cells[injected].source = translate_parameters(
            kernel_name, "python", parameters, "Parameters"
        )


def _declared(source: str) -> dict[str, str]:
    """The names that a cell assigns, each with its annotation; none if it holds magics."""
    names: dict[str, str] = {}
    with contextlib.suppress(SyntaxError):
        for statement in ast.parse(source).body:
            targets = getattr(statement, "targets", [getattr(statement, "target", None)])
            kind = getattr(statement, "annotation", None)
            text = ast.unparse(kind) if kind is not None else ""
            names |= {target.id: text for target in targets if isinstance(target, ast.Name)}
    return names


def papermills_command() -> Any:
    """The context of the papermill command that this process is; None where Python called it."""
    import click

    context = click.get_current_context(silent=True)
    if context is None or getattr(context.command.callback, "__module__", "") != "papermill.cli":
        return None
    return context


def _command_line() -> dict[str, Any]:
    """The -f, -y and -p of papermill, in its order, as text; none where Python called it."""
    from papermill.iorw import papermill_io

    context = papermills_command()
    if context is None:
        return {}
    options, values = context.params, dict[str, Any]()
    for path in options["parameters_file"] or ():
        values |= _mapping(papermill_io.read(path, [".json", ".yaml", ".yml"]))
    for text in options["parameters_yaml"] or ():
        values |= _mapping(text)
    return values | dict(options["parameters"] or ())


def _mapping(text: str) -> dict[str, Any]:
    with contextlib.suppress(ExperimentError):  # papermill has taken it
        values = parse(text, "")
        return values if isinstance(values, dict) else {}
    return {}


def make_strict(node: Any) -> None:
    """Writes what JSON lacks within a notebook as Jupyter does: ``"nan"`` and ``"inf"``."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, item in list(items):
        if isinstance(item, float) and not math.isfinite(item):
            node[key] = repr(item)
        elif isinstance(item, dict | list):
            make_strict(item)
