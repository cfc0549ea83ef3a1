"""The readings of a trained run: what its training kept, or, where that is gone, what its network says now.

torch is imported only where the network has to be asked.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ff.data.prepared_header import PreparedHeader
from ff.learn import readings_file
from ff.learn.readings_file import Kept

if TYPE_CHECKING:
    import torch

    from ff.data.prepared import Prepared


def readings_of(
    run_folder: str | os.PathLike,
    prepared: "Prepared | PreparedHeader",
    device: "str | torch.device | Callable[[], torch.device]" = "cpu",
    batch_size: int = 512,
) -> Kept:
    """The readings of the run in `run_folder`; made where they are missing, damaged, or of another model or images.

    `device`: what the network is asked on, or a function that says so once it has to be asked.
    """
    folder = Path(run_folder)
    return readings_file.load(folder, prepared.content) or _made(folder, prepared, device, batch_size)


def _made(
    folder: Path,
    prepared: "Prepared | PreparedHeader",
    device: "str | torch.device | Callable[[], torch.device]",
    batch_size: int,
) -> Kept:
    from ff.assess.readings import ask
    from ff.data.prepared import open_prepared
    from ff.learn import checkpoint
    from ff.learn.products import choose_library

    images = open_prepared(prepared.path, prepared.verify) if isinstance(prepared, PreparedHeader) else prepared
    where = device() if callable(device) else device
    choose_library()
    network, meta = checkpoint.load(folder / "model.safetensors", where)
    kept = ask(network, images, checkpoint.config(meta), batch_size)
    readings_file.save(folder, kept, meta["model"], images.content)
    return kept
