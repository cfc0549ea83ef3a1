"""`import torchvision` with and without its compiled operators."""

import pytest

# What torchvision does at import: a fake kernel for an operator that its binary should have declared.
NAMES = "print(sorted(n for n in ('nms', 'qnms') if hasattr(torch.ops.torchvision, n)))"
ABSENT = f"""
import torch
import ff.data.torchvision_ops as shim
def refuse(path):
    raise OSError
# A binary that fits is taken away, so that this also tests something where torchvision is whole.
load, torch.ops.load_library = torch.ops.load_library, refuse
{NAMES}
print(shim.declare_missing_operators())
{NAMES}
print(shim.declare_missing_operators())
torch.ops.load_library = load
import torchvision.datasets, torchvision.transforms
print(torchvision.datasets.MNIST.__name__)
try:
    torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except (NotImplementedError, RuntimeError) as error:
    print(type(error).__name__, "nms" in str(error))
"""
PRESENT = """
import torch
made = torch.library.Library("torchvision", "DEF")
made.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
made.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
torch.library.impl("torchvision::nms", "CPU", func=lambda dets, scores, iou_threshold: torch.tensor([7]), lib=made)
from ff.data import torchvision_ops as shim
print(shim.declare_missing_operators())
import torchvision.datasets
print(torch.ops.torchvision.nms(torch.zeros(1, 4), torch.zeros(1), 0.5).tolist())
"""
ONE_OF_TWO = """
import torch
made = torch.library.Library("torchvision", "DEF")
made.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from ff.data import torchvision_ops as shim
print(shim.declare_missing_operators())
"""
BINARY_THAT_FITS = """
import importlib.util, pathlib, sys, types, torch
from ff.data import torchvision_ops as shim
made = []
def load(path):
    made.append(torch.library.Library("torchvision", "DEF"))
    made[0].define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
torch.ops.load_library = load
pathlib.Path(sys.argv[1], "_C.so").write_text("")
importlib.util.find_spec = lambda name: types.SimpleNamespace(submodule_search_locations=[sys.argv[1]])
print(shim.declare_missing_operators(), hasattr(torch.ops.torchvision, "nms"))
"""
NOT_INSTALLED = """
import importlib.util
from ff.errors import FFError
from ff.data import torchvision_ops as shim
importlib.util.find_spec = lambda name: None
try:
    shim.declare_missing_operators()
except FFError as error:
    print(error)
"""


@pytest.fixture
def run(warm, tmp_path):
    """Run code in a fresh process that has torch loaded, but not torchvision."""
    return lambda code, *arguments: warm(tmp_path, *arguments, code=code)


@pytest.fixture(scope="module")
def plain_import(warm, tmp_path_factory):
    """What `import torchvision` does here without help."""
    return warm(tmp_path_factory.mktemp("plain"), code="import torchvision")


def test_where_the_operators_are_absent_the_import_fails_without_the_declarations_only(run, plain_import):
    if plain_import.code == 0:
        pytest.skip("torchvision's own operators load here")
    assert "operator torchvision::nms does not exist" in plain_import.stderr
    helped = run("from ff.data.torchvision_ops import declare_missing_operators as d; d(); import torchvision.datasets")
    assert (helped.code, helped.stderr) == (0, "")


def test_absent_operators_are_declared_once_and_calling_them_still_fails(run, plain_import):
    if plain_import.code == 0:
        pytest.skip("torchvision's own operators load here, and would be declared twice")
    done = run(ABSENT)
    assert done.stderr == ""
    before, declared, after, again, name, called = done.stdout.splitlines()
    assert before == "[]"
    assert declared == after == "['nms', 'qnms']"
    assert again == "[]"
    assert name == "MNIST"
    assert called == "NotImplementedError True"


def test_operators_that_are_there_are_left_alone(run):
    done = run(PRESENT)
    assert done.stdout.splitlines() == ["[]", "[7]"], done.stderr


def test_only_what_is_missing_is_declared(run):
    assert run(ONE_OF_TWO).stdout.strip() == "['qnms']"


def test_a_binary_that_fits_is_loaded(run, tmp_path):
    assert run(BINARY_THAT_FITS, tmp_path).stdout.strip() == "[] True"


def test_without_torchvision_one_sentence_says_how_to_install_it(run):
    assert "pip install" in run(NOT_INSTALLED).stdout
