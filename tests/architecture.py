"""The rooms of ff/ and what they import: `python tests/architecture.py` draws them into docs/architecture.md.

A room is a module or a package directly in ff/. Rooms stand on floors; a room may import from its own floor and from
those below. Imports inside functions count, and so do modules that `import_module` is given by their names; imports for
type checkers alone do not.
"""

import ast
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/architecture.md"
FLOORS = {
    "Commands": ("cli", "commands", "doctor", "arguments", "schemas"),
    "Workflow and tracking": ("workflow", "tracking"),
    "Summaries": ("summary",),
    "Results of one model": ("assess", "measure", "export"),
    "Learning": ("learn",),
    "Machine": ("hardware", "provenance"),
    "Ground": (
        "documents",
        "settings",
        "layout",
        "data",
        "phases",
        "statistics",
        "imports",
        "stamps",
        "job_log",
        "progress",
        "memory",
        "files",
        "errors",
        "ff",
    ),
}
"""From the top to the bottom."""

HEAD = """# The rooms of ff

Drawn from the imports by `python tests/architecture.py`; a test compares. An arrow says "imports"; one that follows
from others is left out. A room imports from its own floor and from those below, never from above, and never in a
circle. The core (`learn`, `assess`, `measure`, `hardware`) needs only torch and numpy when it starts.

"""


class Import(NamedTuple):
    """What a module imports: a module of ff, or the name of another package; `late`: inside a function."""

    name: str
    late: bool


@cache
def modules(root: Path = ROOT) -> dict[str, Path]:
    """{ff.room.module: its file}."""
    found = {}
    for path in sorted(root.glob("ff/**/*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def room(module: str) -> str:
    """The room that a module lies in; the package's own `__init__` is the room `ff`."""
    return module.split(".")[1] if "." in module else module


@cache
def imports(root: Path = ROOT) -> dict[str, frozenset[Import]]:
    """{module: what it imports}."""
    known = modules(root)
    found = {}
    for name, path in known.items():
        text = path.read_text()
        tree = ast.parse(text)
        found[name] = frozenset(_imports(tree, known))
        if "import_module" in text:
            strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
            found[name] |= {Import(module, late=True) for module in known.keys() & strings}
    return found


def _imports(node: ast.AST, known: Mapping[str, Path], late: bool = False) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.If(test=ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                continue
            case ast.Import():
                names = [alias.name for alias in child.names]
            case ast.ImportFrom():
                assert not child.level, "an import names its module in full"
                inner = [f"{child.module}.{alias.name}" for alias in child.names]
                names = [name if name in known else str(child.module) for name in inner]
            case _:
                yield from _imports(child, known, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))
                continue
        yield from (Import(name if name in known else name.split(".")[0], late) for name in names)


def module_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """{module: the modules of ff that it imports}."""
    known = modules(root)
    return {name: {one.name for one in made if one.name in known} for name, made in imports(root).items()}


def room_graph(root: Path = ROOT) -> dict[str, set[str]]:
    """{room: the rooms that it imports}."""
    graph: dict[str, set[str]] = {}
    for module, imported in module_graph(root).items():
        graph.setdefault(room(module), set()).update({room(name) for name in imported} - {room(module)})
    return graph


def users(package: str, root: Path = ROOT) -> set[str]:
    """The rooms that import another package, such as wandb, anywhere in their code."""
    return {room(module) for module, made in imports(root).items() if package in {one.name for one in made}}


def upwards(root: Path = ROOT) -> list[str]:
    """Imports from a floor above, in words."""
    floor = {name: height for height, names in enumerate(reversed(FLOORS.values())) for name in names}
    pairs = [(module, name) for module, names in module_graph(root).items() for name in sorted(names)]
    return [f"{module} imports {name}" for module, name in pairs if floor[room(name)] > floor[room(module)]]


def needed_at_start(rooms: set[str], root: Path = ROOT) -> dict[str, set[str]]:
    """{package that is not ff's: the modules of ff that import it when the modules of `rooms` are imported}."""
    waiting, seen, found = [name for name in modules(root) if room(name) in rooms], set(), {}
    while waiting:
        if (module := waiting.pop()) in seen:
            continue
        seen.add(module)
        for name in (one.name for one in imports(root)[module] if not one.late):
            if name in modules(root):
                waiting.append(name)
            elif name not in sys.stdlib_module_names:
                found.setdefault(name, set()).add(module)
    return found


def page(root: Path = ROOT) -> str:
    """docs/architecture.md."""
    graph = room_graph(root)
    if homeless := sorted(set(graph) - set(order())):
        raise SystemExit(f"on no floor of tests/architecture.py: {', '.join(homeless)}")
    lines = ["```mermaid", "flowchart TD"]
    for title, names in FLOORS.items():
        inside = "; ".join(name for name in names if name in graph)
        lines += [f'  subgraph "{title}"', f"    {inside}", "  end"]
    lines += [f"  {one} --> {other}" for one in order() for other in order() if other in _direct(graph, one)]
    lines += ["```", "", "| floor | room | what it is for | imports |", "| --- | --- | --- | --- |"]
    for title, names in FLOORS.items():
        for name in (name for name in names if name in graph):
            imported = ", ".join(f"`{other}`" for other in order() if other in graph[name])
            lines.append(f"| {title} | `{name}` | {_purpose(name, root)} | {imported} |")
            title = ""
    return HEAD + "\n".join(lines) + "\n"


def order() -> list[str]:
    """All rooms, from the top to the bottom."""
    return [name for names in FLOORS.values() for name in names]


def _direct(graph: Mapping[str, set[str]], one: str) -> set[str]:
    """What `one` imports and would not reach without that arrow."""
    return {other for other in graph.get(one, ()) if not any(other in _reached(graph, by) for by in graph[one])}


def _reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    reached: set[str] = set()
    waiting = set(graph[start])
    while waiting:
        reached |= waiting
        waiting = {name for one in waiting for name in graph[one]} - reached
    return reached


def _purpose(name: str, root: Path) -> str:
    """The first sentence of a room's docstring."""
    path = modules(root)["ff" if name == "ff" else f"ff.{name}"]
    text = (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n\n")[0]
    return " ".join(text.split()).partition(". ")[0].rstrip(".:").replace("|", "\\|") + "."


if __name__ == "__main__":
    PAGE.write_text(page())
