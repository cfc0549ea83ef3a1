"""No account: a home and a working directory without anything of the user's."""

import os
import sys

import pytest


@pytest.fixture(autouse=True)
def no_account(tmp_path, monkeypatch):
    """A home without W&B settings, none in the environment, and an empty working directory."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    for folder in ("home", "work"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield
    wandb = sys.modules.get("wandb")
    if wandb is not None:
        wandb.teardown(0)
