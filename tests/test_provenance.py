"""The hash of the code behind a result: what is followed, what counts, and what each job's script reaches."""

import io
import shutil
import tokenize
from pathlib import Path

import pytest

from ff import provenance
from ff.learn.rules import RULES, forward_forward
from ff.provenance import PACKAGE, code_files, code_hash

ROOT = PACKAGE.parent
SCRIPTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "workflow/scripts").glob("*.py"))


def reached(*entries, **options):
    return {path.relative_to(ROOT).as_posix() for path in code_files(*entries, **options)}


# -- what the project's own jobs reach ----


@pytest.mark.parametrize(
    ("script", "inside", "outside"),
    [
        (
            "train",
            "learn/run learn/trainer learn/network data/labels learn/recipes learn/scores data/prepared data/images "
            "data/registry learn/checkpoint phases learn/resume files errors provenance settings "
            "learn/devices data/torchvision_ops workflow/jobs hardware/machine __init__ hardware/__init__",
            "cli doctor summary/tables statistics summary/report assess/evaluation assess/early_exit learn/inference "
            "workflow/grid workflow/failures progress workflow/gpus hardware/recorder hardware/summary "
            "hardware/sources summary/figures/__init__",
        ),
        (
            "evaluate",
            "assess/evaluation assess/readings learn/network learn/checkpoint data/prepared learn/devices",
            "learn/run learn/trainer assess/early_exit summary/tables learn/inference",
        ),
        (
            "early_exit",
            "assess/early_exit learn/inference assess/readings learn/checkpoint",
            "learn/run assess/evaluation summary/tables",
        ),
        (
            "hardware",
            "hardware/summary phases files",
            "learn/run learn/trainer summary/tables hardware/recorder hardware/tegrastats",
        ),
        (
            "prepare",
            "data/prepared data/readers data/download data/unpickler data/registry data/torchvision_ops files",
            "learn/trainer learn/network learn/run assess/evaluation",
        ),
        (
            "tables",
            "summary/tables statistics stamps workflow/jobs",
            "learn/trainer summary/report summary/figures/accuracy learn/run workflow/failures",
        ),
        (
            "figures",
            "summary/figures/__init__ summary/figures/style summary/figures/frames",
            "learn/trainer summary/report summary/figures/accuracy",
        ),
        (
            "report",
            "summary/report summary/tables statistics summary/figures/__init__",
            "learn/trainer learn/run summary/figures/accuracy",
        ),
    ],
)
def test_a_script_reaches_what_its_result_depends_on(script, inside, outside):
    without = provenance.NOT_TRAINING if script == "train" else ()
    found = reached(f"workflow/scripts/{script}.py", without=without)
    assert f"workflow/scripts/{script}.py" in found
    assert {f"ff/{name}.py" for name in inside.split()} <= found
    assert not {f"ff/{name}.py" for name in outside.split()} & found
    for name in outside.split():
        assert (PACKAGE / f"{name}.py").exists(), "a renamed module would go unnoticed"


def test_a_measurement_depends_on_the_sensors_and_on_the_statistics():
    found = reached("workflow/scripts/measure.py")
    names = (
        "hardware/sources",
        "hardware/ina3221",
        "hardware/nvml",
        "hardware/energy",
        "statistics",
        "learn/inference",
    )
    assert {f"ff/{name}.py" for name in names} <= found


def test_a_training_of_its_own_has_the_hash_of_the_engine():
    by_rule = {name: provenance.training_hash(rule.__name__) for name, rule in RULES.items()}
    assert len(set(by_rule.values())) == len(RULES)
    assert all(len(found) == 12 for found in by_rule.values())
    assert reached("ff.learn.run", without=provenance.NOT_TRAINING) <= reached(
        "workflow/scripts/train.py", without=provenance.NOT_TRAINING
    )


@pytest.mark.parametrize("path", [*PACKAGE.rglob("*.py"), *(ROOT / script for script in SCRIPTS)], ids=str)
def test_no_code_is_taken_for_a_comment(path):
    source = path.read_bytes()
    tokens = tokenize.generate_tokens(io.StringIO(source.decode()).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    found = [match[0].decode() for match in provenance.STRING_OR_COMMENT.finditer(source)]
    assert [text for text in found if text.startswith("#")] == comments


def test_a_training_depends_on_its_own_rule_and_on_no_other():
    found = reached("ff.learn.run", forward_forward.__name__, without=provenance.NOT_TRAINING)
    assert "ff/learn/rules/forward_forward.py" in found
    assert "ff/learn/rules/backprop.py" not in found
    assert {"ff/learn/negatives.py", "ff/learn/objectives.py"} <= found


# -- a made package ----


def made(folder: Path, modules: dict[str, str]) -> Path:
    """A package `made` of the modules given, by their paths without suffix, beside a script."""
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "made"
    for name, text in {"__init__": "", **modules}.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "script.py").write_text("from made import start\n")
    return package


START = """
from made import near


def call():
    from made.far import thing

    return thing, near, "# text"
"""
BASE = {
    "start": START,
    "near": "VALUE = 1\n",
    "far": "def thing():\n    return 2\n",
    "unused": "VALUE = 3\n",
}


def made_hash(folder, **changes):
    return code_hash("script.py", package=made(folder, BASE | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"near": "VALUE = 2\n"},
        {"far": "def thing():\n    return 3\n"},
        {"start": START.replace("# text", "# Text")},
        {"start": START.replace("    return thing", "return thing")},
        {"start": START + "from . import unused\n"},
        {"far": 'def thing():\n    text = """\n    # no comment\n\n    """\n    return 2\n'},
        {"__init__": "import os\n"},
    ],
)
def test_changed_code_changes_the_hash(changes, tmp_path):
    assert made_hash(tmp_path, **changes) != made_hash(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"unused": "VALUE = 4\n"},
        {"near": "# Why.\nVALUE = 1  # one\n\n\n"},
        {"near": '"""What it is."""\n\nVALUE = 1\n'},
        {"far": 'def thing():\n    """What it\n    gives - ä."""\n    # Two.\n    return 2\n'},
        {"another": "VALUE = 5\n"},
    ],
)
def test_comments_docstrings_and_other_modules_do_not(changes, tmp_path):
    assert made_hash(tmp_path, **changes) == made_hash(tmp_path)


def test_a_blank_line_or_a_comment_sign_within_a_string_is_code(tmp_path):
    texts = ['T = """a\n\n#b"""\n', 'T = """a\n#b"""\n', 'T = """a\n\n"""\n', "T = '''a\n\n#b'''\n", "T = 'a#b'\n"]
    assert len({made_hash(tmp_path, near=text) for text in texts}) == len(texts)
    # Equal strings in other places are other code.
    assert made_hash(tmp_path, near="A, B = 'a', 'b'\n") != made_hash(tmp_path, near="A, B = 'b', 'a'\n")


def test_a_moved_or_touched_package_keeps_its_hash(tmp_path):
    before = made_hash(tmp_path / "here")
    assert made_hash(tmp_path / "there") == before


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import made.far", {"far"}),
        ("import made.far as other, os", {"far"}),
        ("from made import far, near", {"far", "near"}),
        ("from . import near", {"near"}),
        ("from .far import (\n    thing,\n)", {"far"}),
        ("from made.room.table import leg", {"room/__init__", "room/table"}),
        ("from made import room", {"room/__init__"}),
        ("try:\n    import made.far\nexcept ImportError:\n    import made.near", {"far", "near"}),
        ("class A:\n    def f(self):\n        with open('x'):\n            from made import far", {"far"}),
        ("match 1:\n    case 1:\n        import made.far", {"far"}),
        ("if 1:\n    pass\nelse:\n    import made.far", {"far"}),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import made.far", set()),
        ("if TYPE_CHECKING:\n    import made.far\nelse:\n    import made.near", {"near"}),
        ("if not TYPE_CHECKING:\n    import made.far", {"far"}),
        ("# import made.far\nTEXT = 'import made.near'", set()),
        ("import os, pathlib\nimport torch.nn", set()),
        ("from made.room.chair import seat", {"room/__init__", "room/chair", "near"}),
    ],
)
def test_every_form_of_import_is_followed(text, found, tmp_path):
    rooms = {"room/__init__": "", "room/table": "leg = 4\n", "room/chair": "from ..near import VALUE\n"}
    package = made(tmp_path, {**BASE, **rooms, "start": text})
    files = {path.relative_to(package).with_suffix("").as_posix() for path in code_files("made.start", package=package)}
    assert files == {"start", *({"__init__"} if found else ()), *found}


def test_imports_are_not_followed_where_it_is_said_so(tmp_path):
    package = made(tmp_path, BASE)
    names = {path.stem for path in code_files("script.py", package=package, without=["made.far"])}
    assert names == {"script", "__init__", "start", "near"}
    # An entry of its own counts all the same.
    names = {path.stem for path in code_files("script.py", "made.far", package=package, without=["made.far"])}
    assert "far" in names


def test_a_template_beside_a_module_counts(tmp_path):
    package = made(tmp_path, {"room/__init__": "", "room/table": "", "start": "from made.room import table\n"})
    (package / "room/page.html").write_text("<p>")
    (package / "room/README.md").write_text("no code")
    before = code_hash("script.py", package=package)
    (package / "room/README.md").write_text("no code at all")
    assert code_hash("script.py", package=package) == before
    (package / "room/page.html").write_text("<b>")
    assert code_hash("script.py", package=package) != before
