"""Projects to call Snakemake on."""

import pytest
from dag_project import Project


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Project:
    """Nothing has run yet; for dry runs only."""
    return Project.new(tmp_path_factory.mktemp("fresh") / "project")


@pytest.fixture(scope="session")
def _finished(tmp_path_factory) -> Project:
    project = Project.new(tmp_path_factory.mktemp("finished") / "project")
    project.snakemake("all", "--cores", "2")
    return project


@pytest.fixture
def finished(_finished, tmp_path) -> Project:
    """All of the tiny grid is done; the copy may be changed."""
    return _finished.copy(tmp_path / "project")
