"""torch, imported when it is first used.

The workflow and the command line read the settings of every learning rule at each start. A rule is one file, so its
settings lie beside its gradients; with torch imported at first use, reading them does not wait a second for it.
"""

from typing import TYPE_CHECKING, Any

__all__ = ["torch"]

if TYPE_CHECKING:
    import torch
else:

    class _Torch:
        def __getattr__(self, name: str) -> Any:
            import torch

            return getattr(torch, name)

    torch = _Torch()
