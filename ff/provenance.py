"""Where a result comes from: code, packages, machine. No host name, user name or secret is recorded."""

import ast
import functools
import hashlib
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
# They watch a job - its progress, the hardware's samples - or choose its GPU, and change nothing of what it makes.
BESIDE = ("ff.progress", "ff.hardware.recorder", "ff.workflow.gpus")
# `ff train` summarises the samples at its end; in the workflow that is a rule of its own. Whether a power sensor can be
# read decides whether a training keeps still for a while before and after, and nothing of its numbers.
NOT_TRAINING = ("ff.hardware.summary", "ff.hardware.sources")
DATA_SUFFIXES = (".css", ".csv", ".html", ".js", ".json", ".svg")
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "safetensors",
    "snakemake",
    "wandb",
    "pandas",
    "matplotlib",
    "scikit-learn",
)


def training_hash(rule: str) -> str:
    """`code_hash` of the training by a learning rule, which is named by its module."""
    return code_hash("ff.learn.run", rule, without=NOT_TRAINING)


def code_hash(*entries: str, without: Sequence[str] = (), package: Path = PACKAGE) -> str:
    """SHA-256 (12 digits) over the code that `entries` reach by their imports.

    The DAG puts it into its rules' params, so that changed code is rerun, and a touched or moved file, another
    comment or docstring is not. `entries` and `without` are those of `code_files`.
    """
    digest = hashlib.sha256()
    for path in code_files(*entries, without=without, package=package):
        code = _scanned(path, package)[0] if path.suffix == ".py" else path.read_bytes()
        digest.update(b"%s\0%s\0" % (path.relative_to(package.parent).as_posix().encode(), code))
    return digest.hexdigest()[:12]


def code_files(*entries: str, without: Sequence[str] = (), package: Path = PACKAGE) -> list[Path]:
    """The files that the code of `entries` lies in: modules (`ff.learn.run`), scripts (`workflow/scripts/train.py`,
    beside the package), and all of the package that they import, directly or through others.

    Imports inside of functions count; those for type checkers alone do not. None is followed to the modules `BESIDE` a
    job and `without`. Data files beside a module, such as a template, belong to it. What is imported by a name that is
    only known at run time - a learning rule, the module of a figure - must be given as an entry.
    """
    waiting, files = list(entries), set()
    seen = {*entries, *BESIDE, *without}
    while waiting:
        path = _file_of(waiting.pop(), package)
        if path is None:
            continue
        files.add(path)
        reached = _scanned(path, package)[1] - seen
        seen |= reached
        waiting += reached
    folders = {path.parent for path in files if package in path.parents}
    return sorted(files.union(file for folder in folders for file in folder.iterdir() if file.suffix in DATA_SUFFIXES))


def _file_of(entry: str, package: Path) -> Path | None:
    """The file of a module or script; None for a name that is no module, such as an imported function."""
    if entry.endswith(".py"):
        return package.parent / entry
    place = package.parent.joinpath(*entry.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _scanned(path: Path, package: Path) -> tuple[bytes, set[str]]:
    """A Python file's code without comments, docstrings and blank lines; and what it imports of `package`."""
    inside = path.relative_to(package.parent).with_suffix("").parts
    return _scanned_source(path.read_bytes(), inside if path.name == "__init__.py" else inside[:-1], package.name)


@functools.cache
def _scanned_source(source: bytes, home: tuple[str, ...], package: str) -> tuple[bytes, set[str]]:
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    imported: set[str] = set()
    docstrings = []
    for node in _statements(ast.parse(source)):
        if isinstance(node, ast.Expr):
            first, last = starts[node.lineno - 1], starts[(node.end_lineno or 0) - 1]
            docstrings.append(slice(first + node.col_offset, last + (node.end_col_offset or 0)))
        elif isinstance(node, ast.Import):
            imported.update(name.name for name in node.names)
        else:
            base = ".".join(home[: len(home) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            imported.update((module, *(f"{module}.{name.name}" for name in node.names)))
    code = bytearray(source)
    for part in reversed(docstrings):
        del code[part]
    # With a module come the packages that it lies in.
    parents = {name.rsplit(".", depth)[0] for name in imported for depth in range(name.count(".") + 1)}
    return _bare(bytes(code)), {name for name in parents if name.split(".")[0] == package}


_NEVER_TRUE = ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def _statements(node: ast.AST) -> Iterator[ast.Expr | ast.Import | ast.ImportFrom]:
    """Docstrings and imports below `node`, in their order."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str())) as docstring, *_]:
                yield docstring
    for block in ("body", "handlers", "cases", "orelse", "finalbody"):
        if block == "body" and isinstance(node, ast.If) and ast.unparse(node.test) in _NEVER_TRUE:
            continue
        for child in getattr(node, block, ()):
            if isinstance(child, ast.Import | ast.ImportFrom):
                yield child
            else:
                yield from _statements(child)


# A comment, or a string in any quotes, which may hold what looks like a comment.
STRING_OR_COMMENT = re.compile(
    rb""""{3}(?:\\.|.)*?"{3}|'{3}(?:\\.|.)*?'{3}|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*""", re.DOTALL
)


def _bare(code: bytes) -> bytes:
    """Code without comments, blank lines and spaces at the ends of lines; strings as they are, at the end."""
    strings = []

    def keep(match: re.Match) -> bytes:
        if match[0].startswith(b"#"):
            return b""
        strings.append(match[0])
        return b"\0"

    text = STRING_OR_COMMENT.sub(keep, code)
    return b"\0".join((re.sub(rb"\s*\n", b"\n", text).strip(), *strings))


def git_state() -> tuple[str | None, bool | None]:
    """Commit of the checkout that ff runs from, and whether it has uncommitted changes; None outside of one."""
    root = PACKAGE.parent
    if not (root / ".git").exists():
        return None, None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit, bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def packages() -> dict[str, str]:
    """Versions of the packages that matter, of those that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, Any]:
    """What metrics.json says about code, packages and machine."""
    from ff.hardware.machine import describe as describe_machine

    commit, dirty = git_state()
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "python": platform.python_version(),
        "packages": packages(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "machine": describe_machine(),
    }
