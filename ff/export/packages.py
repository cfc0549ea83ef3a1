"""The optional packages of the extra `edge`."""

from importlib.util import find_spec

from ff.errors import FFError

EDGE = ("onnx", "onnxruntime")


def require() -> None:
    """Raise FFError where a package of the extra `edge` is missing, with the command that installs it."""
    missing = [name for name in EDGE if find_spec(name) is None]
    if missing:
        raise FFError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed, which exported networks "
            'need; run: pip install -c constraints.txt -e ".[edge]"'
        )
