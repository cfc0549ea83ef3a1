"""Pickled batches are read, and hostile ones refused without any effect."""

import os
import pickle
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_raw_data import (
    cifar_batch,
    made_images,
    pickled_array,
    short_string,
)

from ff.data import unpickler
from ff.data.unpickler import load_arrays
from ff.errors import FFError


def test_a_batch_as_in_the_official_files_is_read():
    images = made_images(4, 3072)
    content = load_arrays(cifar_batch(images, [3, 1, 4, 1]), "data_batch_1")
    assert np.array_equal(content["data"], images)
    assert content["data"].dtype == np.uint8
    assert content["labels"] == [3, 1, 4, 1]
    assert content["batch_label"] == "made batch"


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_a_batch_that_python_3_wrote_is_read(protocol):
    images = made_images(4, 3072)
    for data, labels in ((images, [1, 2, 3, 4]), (np.asfortranarray(images), np.arange(4))):
        found = load_arrays(pickle.dumps({"data": data, "labels": labels}, protocol=protocol), "data_batch_1")
        assert np.array_equal(found["data"], images)
        assert np.array_equal(found["labels"], labels)


class Reduced:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def names(module: str, name: str, *, arguments: bytes = b"(") -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n" + arguments + b"tR"


def in_batch(value: bytes) -> bytes:
    """A batch whose `data` is what the opcodes given leave behind."""
    return b"\x80\x02}(" + short_string(b"labels") + b"](K\x01e" + short_string(b"data") + value + b"u."


ARRAY, DTYPE = b"cnumpy.core.multiarray\n_reconstruct\n", b"cnumpy\ndtype\n"


OBJECTS = DTYPE + b"U\x01OK\x00K\x01\x87R"


HOSTILE = {
    "os.system": pickle.dumps({"data": Reduced(os.system, "touch hacked"), "labels": []}),
    "posix.system": in_batch(names("posix", "system", arguments=b"(" + short_string(b"touch hacked"))),
    "builtins.eval": pickle.dumps({"data": Reduced(eval, "open('hacked', 'w')"), "labels": []}),
    "builtins.exec": in_batch(names("__builtin__", "exec", arguments=b"(" + short_string(b"open('hacked','w')"))),
    "builtins.getattr": in_batch(names("builtins", "getattr")),
    "numpy.load": pickle.dumps({"data": Reduced(np.load, "hacked"), "labels": []}),
    "numpy.fromfile": in_batch(names("numpy", "fromfile", arguments=b"(" + short_string(b"/etc/passwd"))),
    "numpy.memmap": in_batch(names("numpy", "memmap", arguments=b"(" + short_string(b"hacked"))),
    "numpy.f2py": in_batch(names("numpy.testing._private.utils", "runstring")),
    "nested name": in_batch(names("numpy", "ndarray.tofile")),
    "nested name of protocol 4": b"\x80\x04}(\x8c\x06labels](e\x8c\x04data\x8c\x05numpy\x8c\x0endarray.tofile\x93)Ru.",
    "dunder": in_batch(names("numpy", "ndarray.__class__")),
    "subprocess": in_batch(names("subprocess", "Popen", arguments=b"(" + short_string(b"true"))),
    "unused": b"\x80\x02" + names("os", "getcwd") + b"0" + cifar_batch(made_images(1, 3072), [1])[2:],
    "instance": in_batch(b"(" + short_string(b"true") + b"ios\nsystem\n"),
    "extension": in_batch(b"\x82\x01"),
    "persistent": in_batch(b"Pnumber\n"),
    # numpy's own names, used otherwise: an array of objects over bytes makes any number an address.
    "objects over bytes": in_batch(b"cnumpy\nndarray\n(K\x01\x85" + OBJECTS + short_string(b"A" * 8) + b"tR"),
    "ndarray called": in_batch(b"cnumpy\nndarray\n(K\x01\x85tR"),
    "ndarray made": in_batch(b"cnumpy\nndarray\n(K\x01\x85t\x81"),
    "array without content": in_batch(ARRAY + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"),
    "array of objects": in_batch(
        ARRAY + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85" + OBJECTS + b"\x89](K\x01etb"
    ),
    "dtype with fields": in_batch(
        ARRAY
        + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01K\x01\x85"
        + (DTYPE + b"U\x02V8K\x00K\x01\x87R")
        + (
            b"(K\x03U\x01|N"
            + short_string(b"a")
            + b"\x85}"
            + short_string(b"a")
            + OBJECTS
            + b"K\x00\x86sK\x08K\x01K\x00tb"
        )
        + (b"\x89" + short_string(b"A" * 8) + b"tb")
    ),
    "more than was stored": in_batch(pickled_array(made_images(1, 4)).replace(b"J\x04\0\0\0", b"J\xff\xff\xff\x7f")),
    "less than nothing": in_batch(pickled_array(made_images(1, 4)).replace(b"J\x04\0\0\0", b"J\xfe\xff\xff\xff")),
    "state of a class": in_batch(ARRAY + b"N}" + short_string(b"array") + b"K\x01s\x86b"),
    "state of another class": in_batch(DTYPE + b"N}" + short_string(b"dtype") + b"K\x01s\x86b"),
    "state of bytes": in_batch(b"c_codecs\nencode\nN}" + short_string(b"x") + b"K\x01s\x86b"),
    "another codec": in_batch(b"c_codecs\nencode\n(" + short_string(b"x") + short_string(b"zlib") + b"tR"),
    "no dictionary": b"\x80\x02](K\x01e.",
    "no labels": b"\x80\x02}" + short_string(b"data") + b"K\x01s.",
    "empty": b"",
    "recursive": b"\x80\x02}q\x00" + short_string(b"data") + b"h\x00s.",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_pickles_are_refused_and_do_nothing(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {name: dict(vars(thing)) for name, thing in vars(unpickler).items() if isinstance(thing, type)}
    with pytest.raises(FFError, match="batch_9"):
        load_arrays(HOSTILE[kind], "batch_9")
    assert list(tmp_path.iterdir()) == []
    assert {name: dict(vars(thing)) for name, thing in vars(unpickler).items() if isinstance(thing, type)} == before


def test_the_hostile_pickles_would_work_with_the_plain_unpickler(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind in ("os.system", "builtins.eval", "posix.system"):
        pickle.loads(HOSTILE[kind], encoding="latin1")
        assert (tmp_path / "hacked").exists(), kind
        (tmp_path / "hacked").unlink()


@pytest.mark.parametrize(
    "bomb",
    [
        # A few bytes that ask for gigabytes: a memo of four thousand million entries, an array, a byte array.
        b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b".",
        # A table of 512 MB, which there would be room for.
        b"\x80\x02}r" + struct.pack("<I", 2**25) + b".",
        in_batch(ARRAY + b"cnumpy\nndarray\n\x8a\x06\x00\x00\x00\x00\x00\x10\x85U\x01b\x87R"),
        b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    ],
)
def test_pickles_that_ask_for_too_much_memory_are_refused(bomb, warm, tmp_path):
    (tmp_path / "bomb").write_bytes(bomb)
    code = """
import resource
from ff.data.unpickler import load_arrays
from ff.errors import FFError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
try:
    load_arrays(open("bomb", "rb").read(), "data_batch_1")
except FFError:
    print("refused", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = warm(tmp_path, code=code)
    word, grown_kb = done.stdout.split()
    assert word == "refused", done.stderr
    assert int(grown_kb) < 100_000


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_changed_batches_are_read_or_refused(data):
    batch = bytearray(cifar_batch(made_images(2, 12), [1, 2]))
    for _ in range(data.draw(st.integers(1, 4))):
        batch[data.draw(st.integers(0, len(batch) - 1))] = data.draw(st.integers(0, 255))
    try:
        content = load_arrays(bytes(batch), "data_batch_1")
    except FFError:
        return
    assert {"data", "labels"} <= set(content)
