"""The optional packages of the extra `edge`."""

from importlib.util import find_spec

from ff.errors import FFError

EDGE = ("onnx", "onnxruntime")


def missing_packages() -> str | None:
    """What is not installed of the extra `edge`, with the command that installs it; None where all is there."""
    missing = [name for name in EDGE if find_spec(name) is None]
    if not missing:
        return None
    return (
        f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed, which exported networks "
        'need; run: pip install -c constraints.txt -e ".[edge]"'
    )


def require() -> None:
    """Raise FFError where a package of the extra `edge` is missing."""
    if missing := missing_packages():
        raise FFError(missing)
