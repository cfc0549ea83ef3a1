"""What a training shows while it runs: a bar with the time left on a terminal, one line per epoch otherwise."""

import sys
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

    from ff.learn.trainer import Epoch


class Progress:
    """Shows epochs on stderr; `say` prints a message without breaking the bar."""

    def __init__(self, name: str):
        self.name = name
        self._bar: tqdm | None = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, text: str) -> None:
        """Print one line."""
        if self._bar is not None:
            self._bar.write(f"ff: {text}", file=sys.stderr)
        else:
            print(f"ff: {text}", file=sys.stderr, flush=True)

    def epoch(self, epoch: "Epoch", total: int) -> None:
        """Show a finished epoch of `total`."""
        accuracy = epoch.validation_accuracy[0]
        shown = f", validation {accuracy:.2%} ({epoch.validation_readout})" if accuracy is not None else ""
        if not sys.stderr.isatty():
            self.say(f"{epoch.phase} epoch {epoch.epoch}: loss {epoch.loss[0]:.4f}{shown}, {epoch.seconds:.2f} s")
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=self.name, unit="epoch", file=sys.stderr, dynamic_ncols=True)
        self._bar.set_postfix_str(f"{epoch.phase}, loss {epoch.loss[0]:.4f}{shown}")
        self._bar.update(1)
