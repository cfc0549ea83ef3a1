"""Reads pickled CIFAR batches without being able to run anything that they may contain.

A pickle is a program, and `pickle.load` calls whatever it names. A batch may come from anywhere: `verify: false` takes
other bytes than the official ones. So each is taken for an attempt to

- run code: only the names in `NAMES` are looked up, and what they give is defined in this file;
- read memory: numpy's own constructors take any type over any bytes, and an array of objects over chosen bytes makes
  any number an address. Here an array is whole numbers over the bytes that were stored with it, and no others;
- use up memory: the unpickler in C makes a table as large as a number in the file says; the one in Python does not.

Whatever fails on the way is one FFError.
"""

import io
import pickle
import re
from typing import TYPE_CHECKING, Any, ClassVar

from ff.errors import FFError

if TYPE_CHECKING:
    import numpy


class _StoredType:
    """What a pickled dtype says; numpy's own would accept a state that makes it read any address as an object."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *_: Any):
        self.code, self.order = str(code), "|"

    def __setstate__(self, state: tuple) -> None:
        self.order = str(state[1])

    def dtype(self) -> "numpy.dtype":
        """The integer type that it names."""
        import numpy

        if not re.fullmatch(r"[|<>][iu][1248]", self.order + self.code):
            raise pickle.UnpicklingError(f"it holds an array of type {self.order + self.code!r}, not of whole numbers")
        return numpy.dtype(self.order + self.code)


class _StoredArray:
    """What a pickled array says. Not numpy's own, whose constructor takes any type over any bytes."""

    __slots__ = ("_state",)

    def __init__(self, *_: Any):
        self._state: tuple | None = None

    def __setstate__(self, state: tuple) -> None:
        self._state = state

    def array(self) -> "numpy.ndarray":
        """The numbers, over the bytes that were stored and no others."""
        import numpy

        if self._state is None:
            raise pickle.UnpicklingError("it holds an array without content")
        _, shape, kind, by_columns, raw = self._state
        if min(shape) < 0:
            # reshape would take it for "as many as there are".
            raise pickle.UnpicklingError(f"it holds an array of shape {shape}")
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        return numpy.frombuffer(data, kind.dtype()).reshape(shape, order="F" if by_columns else "C")


class _StoredBytes(bytes):
    """How Python 3 writes bytes in protocol 2: as text with the name of a codec."""

    def __new__(cls, text: str, codec: str) -> "_StoredBytes":
        if codec != "latin1":
            raise pickle.UnpicklingError(f"it asks for codec {codec!r}")
        return super().__new__(cls, text.encode("latin1"))

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("bytes have no state")


# The unpickler written in Python: to the one in C, five bytes can say that they need a table of 64 GiB.
class _ArrayUnpickler(pickle._Unpickler):
    """Builds what stands for numpy arrays, and plain containers, and nothing else; any other name is refused."""

    NAMES: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _StoredArray,
        ("numpy._core.multiarray", "_reconstruct"): _StoredArray,
        ("numpy", "dtype"): _StoredType,
        # Only ever an argument of _reconstruct.
        ("numpy", "ndarray"): None,
        ("_codecs", "encode"): _StoredBytes,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self.NAMES[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no image file needs") from None


def load_arrays(data: bytes, name: str) -> dict[str, Any]:
    """The dictionary in a pickled CIFAR batch, read without being able to run anything it may contain.

    `labels` are there under that name, which CIFAR100 calls `fine_labels`, beside its coarse ones. Raises FFError when
    the pickle asks for anything but numpy arrays and plain containers, or is none.
    """
    try:
        content = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        if isinstance(content, dict):
            content = {key: v.array() if isinstance(v, _StoredArray) else v for key, v in content.items()}
    except Exception as error:
        # A hostile or damaged pickle can fail in any way; all of them mean the same to the user.
        raise FFError(f"{name} is not a CIFAR batch: {error}; fetch it again") from error
    if isinstance(content, dict) and "fine_labels" in content:
        content["labels"] = content.pop("fine_labels")
    if not isinstance(content, dict) or "data" not in content or "labels" not in content:
        raise FFError(f"{name} is not a CIFAR batch: no data and labels in it; fetch it again")
    return content
