"""The lists of deliberate faults fit the code and the tests that they name, and their runner tells what it sees."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import faults
import pytest
from faults import Fault, ListError, Outcome

AT_LEAST = 150


@cache
def functions_of(path: Path) -> set[str]:
    """Names of the functions of a file."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_fault_fits_the_code_and_names_tests_that_exist():
    listed = faults.read_lists()
    assert len(listed) >= AT_LEAST
    wrong = []
    for fault in listed:
        try:
            fault.apply((faults.REPOSITORY / fault.file).read_text())
        except (OSError, ListError) as error:
            wrong.append(str(error))
        named = [argument for argument in fault.tests if argument.startswith("tests/")]
        for file, *node in (argument.split("::") for argument in named):
            path = faults.REPOSITORY / file
            if not path.exists() or not {name.split("[")[0] for name in node} <= functions_of(path):
                wrong.append(f"{fault.area}: {fault.name!r}: there is no test {'::'.join([file, *node])}")
        if not named:
            wrong.append(f"{fault.area}: {fault.name!r} names no tests")
    assert not wrong, "\n".join(wrong)


def made(text: str, replacement: str = "new", harmless: str | None = None) -> Fault:
    return Fault("made", "a fault", "a.py", text, replacement, ("tests/test_a.py",), harmless)


def test_a_text_of_several_lines_takes_the_indentation_of_its_place():
    source = "def f():\n    if a:\n        b\n\n        c\n    d\n"
    fault = made("if a:\n    b\n\n    c", "if x:\n    y\nz")
    assert fault.apply(source) == "def f():\n    if x:\n        y\n    z\n    d\n"
    assert made("a:\n        b", "a:\n        x").apply("if a:\n        b\n") == "if a:\n        x\n"
    # As it stands, where it begins with a space.
    assert made("    if a:\n        b").apply(source) == "def f():\nnew\n\n        c\n    d\n"


@pytest.mark.parametrize(("source", "times"), [("x = 1", 0), ("a\na", 2), ("aa", 2)])
def test_a_text_that_is_not_there_exactly_once_is_an_error_that_names_the_entry(source, times):
    with pytest.raises(ListError, match=rf"made: 'a fault': its text occurs {times} times in a\.py"):
        made("a").apply(source)


def test_a_fault_that_changes_nothing_is_an_error():
    with pytest.raises(ListError, match="replacement is its text"):
        made("a", "a").apply("a")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("- name: x", "needs the texts"),
        ("- {name: x, file: a, text: b, replacement: c, tests: d, why: e}", "needs the texts"),
        ("- {name: x, file: a, text: 1, replacement: c, tests: d}", "needs the texts"),
        ("- 3", "needs the texts"),
        ("- {", "is not YAML"),
        ("- &a {name: x, file: a, text: b, replacement: c, tests: d}\n- *a", "2 faults are called 'x'"),
    ],
)
def test_a_list_that_is_none_is_an_error_that_names_it(tmp_path, entries, message):
    (tmp_path / "area.yaml").write_text(entries)
    with pytest.raises(ListError, match=message):
        faults.read_lists(tmp_path)


SOUND, NOTHING = Outcome(0, 1.0, "....\n4 passed in 1.0s"), Outcome(0, 1.0, "2 skipped in 1.0s")
RED = Outcome(1, 1.0, "FAILED tests/test_a.py::test_b - assert\n1 failed")


@pytest.mark.parametrize(
    ("sound", "faulty", "harmless", "word", "why"),
    [
        (SOUND, RED, None, "caught", "tests/test_a.py::test_b"),
        (SOUND, Outcome(None, 40.0, ""), None, "caught", "time limit"),
        (SOUND, Outcome(-11, 1.0, ""), None, "caught", "exit status -11"),
        (SOUND, SOUND, None, "SURVIVED", "tests/test_a.py"),
        (SOUND, SOUND, "because", "harmless", "because"),
        (SOUND, RED, "because", "broken", "called harmless, and caught"),
        (SOUND, Outcome(2, 1.0, "error in collection"), None, "broken", "no test runs with it"),
        (RED, RED, None, "broken", "without the fault: 1 failed"),
        (NOTHING, NOTHING, None, "broken", "without the fault: 2 skipped"),
    ],
)
def test_verdicts(sound, faulty, harmless, word, why):
    verdict = faults.judge(made("a", harmless=harmless), sound, faulty)
    assert verdict.word == word
    assert why in verdict.why


ENTRIES = """
- {name: it adds one, file: ff/a.py, text: return x, replacement: return x + 1, tests: tests/test_a.py}
- {name: it never ends, file: ff/a.py, text: return x, replacement: "while True: pass", tests: tests/test_a.py}
- {name: it does nothing, file: ff/a.py, text: return x, replacement: return x + 0, tests: tests/test_a.py}
- {name: the note is lost, file: ff/a.py, text: "# note", replacement: "", tests: tests/test_a.py, harmless: a note}
- {name: nothing is there, file: ff/a.py, text: nothing, replacement: "", tests: tests/test_a.py}
- {name: it is no Python, file: ff/a.py, text: return x, replacement: return (, tests: tests/test_a.py}
- {name: its tests fail anyway, file: ff/a.py, text: return x, replacement: return 5, tests: tests/test_b.py}
"""


@pytest.mark.slow
def test_the_command_on_a_project_of_its_own(tmp_path):
    """Real processes: each verdict once, the working tree as it was, an exit status that tells."""
    files = {
        "ff/__init__.py": "",
        "ff/a.py": "def same(x):  # note\n    return x\n",
        "workflow/a": "",
        "tests/test_a.py": "from ff.a import same\n\n\ndef test_same():\n    assert same(4) == 4\n",
        "tests/test_b.py": "def test_b():\n    raise ValueError\n",
        "tests/faults/made.yaml": ENTRIES,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    source = Path(faults.__file__).read_text()
    assert "LIMIT_SECONDS, LIMIT_TIMES = 30, 5" in source
    short = source.replace("LIMIT_SECONDS, LIMIT_TIMES = 30, 5", "LIMIT_SECONDS, LIMIT_TIMES = 5, 1")
    (tmp_path / "tests/faults.py").write_text(short)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    command = [sys.executable, "tests/faults.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    lines = {line.split("made: ")[1].split("  (")[0]: line for line in done.stdout.splitlines() if line.startswith("[")}
    assert {name: line.split()[1] for name, line in lines.items()} == {
        "it adds one": "caught",
        "it never ends": "caught",
        "it does nothing": "SURVIVED",
        "the note is lost": "harmless",
        "nothing is there": "broken",
        "it is no Python": "broken",
        "its tests fail anyway": "broken",
    }, done.stdout + done.stderr
    assert "time limit" in lines["it never ends"]
    assert "SURVIVED: made: it does nothing" in done.stdout
    assert done.returncode == 1
    assert (tmp_path / "ff/a.py").read_text() == files["ff/a.py"]
    fine = subprocess.run([*command, "--only", "adds", "--only", "note"], cwd=tmp_path, capture_output=True, text=True)
    assert fine.returncode == 0, fine.stdout + fine.stderr


def test_the_command_lists_names_and_refuses_what_fits_none(capsys):
    assert faults.main(["--list", "--area", "learning", "--only", "uniform negative"]) == 0
    assert "learning: a uniform negative may be the true label" in capsys.readouterr().out.splitlines()
    assert faults.main(["--area", "nowhere"]) == 1
    assert "no fault" in capsys.readouterr().err
