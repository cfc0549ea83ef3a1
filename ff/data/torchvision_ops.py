"""Makes `import torchvision` work where its compiled operators do not fit the installed torch.

CPU builds of torch and every Jetson: torchvision's binary asks for CUDA libraries, does not load, and the import
fails with "operator torchvision::nms does not exist", because a Python file registers a fake kernel for it. ff uses
torchvision's data sets and transforms only, so declaring the missing operators' schemas is enough. Calling them
still fails, with torch's own message. Where the compiled operators load, nothing is declared.
"""

import importlib.util
from pathlib import Path

import torch

from ff.errors import FFError

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
# A declaration lives as long as its Library object.
_declarations: list[torch.library.Library] = []


def declare_missing_operators() -> list[str]:
    """Declare the operators that are absent and give their names; call it before the first `import torchvision`.

    Raises FFError when torchvision is not installed.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        raise FFError("torchvision is not installed; install it with: pip install -c constraints.txt torchvision")
    if _operators_load(Path(spec.submodule_search_locations[0])):
        return []
    missing = [name for name in SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    if missing:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in missing:
            library.define(SCHEMAS[name])
        _declarations.append(library)
    return missing


def _operators_load(folder: Path) -> bool:
    for binary in folder.glob("_C*.so"):
        try:
            torch.ops.load_library(str(binary))
        except OSError:
            continue
        return hasattr(torch.ops.torchvision, "nms")
    return False
