"""Where a result comes from: code, packages, machine. No host name, user name or secret is recorded."""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent
# What a trained network's numbers depend on.
ENGINE = ("labels.py", "network.py", "objectives.py", "trainer.py", "datasets.py")
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


def code_hash(files: Iterable[str | os.PathLike] = ENGINE) -> str:
    """SHA-256 (12 digits) over the contents of `files`, relative to the package unless absolute.

    The DAG puts it into its rules' params, so that changed code is rerun and a touched or moved file is not.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update((PACKAGE / file).read_bytes())
        digest.update(b"\0")
    return digest.hexdigest()[:12]


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
    """Everything that metrics.json says about code, packages and machine."""
    from ff.hardware.machine import describe as describe_machine

    commit, dirty = git_state()
    return {
        "git_commit": commit,
        "git_dirty": dirty,
        "code_hash": code_hash(),
        "python": platform.python_version(),
        "packages": packages(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "machine": describe_machine(),
    }
