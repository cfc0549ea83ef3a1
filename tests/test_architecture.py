"""The rooms of ff/: no import upwards, no circle, and a drawing that is current."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from itertools import count

import architecture
import pytest

CORE = {"learn", "assess", "measure", "hardware"}
# Places that are about to come.
MISSING = {"ff/summary/tables/"}


def test_the_drawing_is_current():
    assert architecture.PAGE.read_text() == architecture.page(), "run: python tests/architecture.py"


def test_no_room_imports_from_a_floor_above():
    assert not architecture.upwards()


def test_neither_modules_nor_rooms_import_each_other_in_a_circle():
    TopologicalSorter(architecture.module_graph()).prepare()
    TopologicalSorter(architecture.room_graph()).prepare()


def test_the_core_starts_with_torch_and_numpy_alone():
    assert set(architecture.needed_at_start(CORE)) == {"torch", "numpy"}


@pytest.mark.parametrize(
    ("package", "rooms"),
    [
        ("wandb", {"tracking"}),
        ("matplotlib", {"summary"}),
        ("pandas", {"summary"}),
        ("jinja2", {"summary"}),
        ("tqdm", {"progress"}),
        ("onnx", {"export"}),
        ("onnxruntime", {"export"}),
    ],
)
def test_a_package_is_used_in_one_room(package, rooms):
    assert architecture.users(package) == rooms


def test_what_contributing_names_is_there():
    text = (architecture.ROOT / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:ff|tests|docs)/[\w/.]+)`", text))
    assert len(named) >= 8
    assert {name for name in named if not (architecture.ROOT / name).exists()} <= MISSING


def test_every_room_begins_with_what_it_is_for():
    for name, path in architecture.modules().items():
        assert ast.get_docstring(ast.parse(path.read_text())), name


@pytest.fixture
def house(tmp_path):
    """Writes modules of an ff of their own; returns the folder that holds it."""
    numbers = count()

    def write(**modules):
        root = tmp_path / str(next(numbers))
        for name, text in {"__init__": "", **modules}.items():
            path = root.joinpath("ff", *name.split("/")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root

    return write


def test_an_import_inside_of_a_function_counts_and_one_for_type_checkers_does_not(house):
    late = "def call():\n    from ff import measure\n"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ff.measure import thing\n"
    root = house(files=late, errors=typed, measure="import pandas\n")
    assert architecture.upwards(root) == ["ff.files imports ff.measure"]
    assert architecture.needed_at_start({"files", "errors"}, root) == {}


def test_a_module_that_is_imported_by_its_name_counts(house):
    table = 'from importlib import import_module\nCOMMANDS = {"measure": "ff.measure.run"}\n'
    root = house(**{"files": table, "errors": 'NAMED = "ff.measure.run"\n', "measure/run": "import pandas\n"})
    assert architecture.upwards(root) == ["ff.files imports ff.measure.run"]
    assert architecture.needed_at_start({"files"}, root) == {}


def test_what_the_core_needs_is_followed_through_other_rooms(house):
    root = house(**{"learn/run": "from ff.files import write\n", "files": "import os\nfrom pandas import DataFrame\n"})
    assert architecture.needed_at_start({"learn"}, root) == {"pandas": {"ff.files"}}


def test_a_circle_of_modules_in_one_room_is_seen(house):
    root = house(**{"learn/a": "from ff.learn import b\n", "learn/b": "def call():\n    import ff.learn.a\n"})
    with pytest.raises(CycleError):
        TopologicalSorter(architecture.module_graph(root)).prepare()
    assert architecture.room_graph(root) == {"ff": set(), "learn": set()}


def test_a_room_on_no_floor_is_named(house):
    with pytest.raises(SystemExit, match=r"on no floor .*: attic"):
        architecture.page(house(attic=""))
