"""A module imports only from the floors below its own; CONTRIBUTING.md has the picture.

Read with `ast`, so that an import inside a function counts as well.
"""

import ast
import functools
import graphlib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From the ground upwards; rooms of one floor stand side by side and do not import one another.
FLOORS = [
    ["bnnlib", "bnnlib.errors", "bnnlib.names"],
    ["bnnlib.launcher"],
    ["bnnlib.process", "bnnlib.parameters", "bnnlib.limits"],
    ["bnnlib.experiment"],
    ["bnnlib.metrics"],
    ["bnnlib.data"],
    ["bnnlib.record"],
    ["bnnlib.session", "bnnlib.analysis"],
    ["bnnlib.spmd"],
    ["bnnlib.networks"],
    ["bnnlib.inference"],
    ["bnnlib.launch"],
    ["bnnlib.interactive", "bnnlib.__main__", "bnnlib.training"],
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
# These take seconds to import, and a service node cannot import them at all.
HEAVY = {"tensorflow", "tensorflow_probability", "tf_keras", "horovod"}
MAY_BE_HEAVY = {"bnnlib.networks", "bnnlib.inference", "bnnlib.launch", "bnnlib.interactive"}
MAX_LINES = 500


def _name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {_name(file): file for file in sorted((ROOT / "bnnlib").rglob("*.py"))}


def room(module: str) -> str:
    """The folder or the single module right below bnnlib."""
    return ".".join(module.split(".")[:2])


def is_for_type_checkers(node: ast.AST) -> bool:
    """Whether a statement is an ``if TYPE_CHECKING:``, whose imports never run."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """All that runs below a node."""
    for child in ast.iter_child_nodes(node):
        if not is_for_type_checkers(child):
            yield child
            yield from statements(child)


@functools.cache
def imports(module: str) -> set[str]:
    """What a module imports: modules of bnnlib in full, of others the package."""
    imported: set[str] = set()
    for node in statements(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}, line {node.lineno}: import it by its full name"
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in FILES else str(node.module) for name in inside]
        else:
            continue
        imported |= {name if name in FILES else name.split(".")[0] for name in names}
    return imported - {module}


def test_each_room_has_its_floor():
    assert {room(module) for module in FILES} <= set(FLOOR)


def test_imports_go_downwards():
    upwards = [
        f"{module} imports {other}"
        for module in FILES
        for other in sorted(imports(module) & set(FILES))
        if room(other) != room(module) and FLOOR[room(other)] >= FLOOR[room(module)]
    ]
    assert not upwards


def test_no_module_imports_itself_through_others():
    graph = {module: imports(module) & set(FILES) for module in FILES}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, with the circle


def test_what_reads_records_needs_no_tensorflow():
    heavy = [
        f"{module} imports {other}"
        for module in FILES
        if room(module) not in MAY_BE_HEAVY
        for other in sorted(imports(module) & HEAVY)
    ]
    assert not heavy


def test_no_module_is_too_long_to_read():
    lines = {module: len(file.read_text().splitlines()) for module, file in FILES.items()}
    assert not {m: n for m, n in lines.items() if n > MAX_LINES}
