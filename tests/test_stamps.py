"""Stamps tell a file of another model, and one that names none, from the run's own."""

import pytest

from ff.stamps import stamp_of, stamp_of_rows, why_stale


def test_a_file_of_another_model_or_of_none_is_stale():
    assert why_stale("a" * 16, "a" * 16) is None
    assert why_stale("b" * 16, "a" * 16) == f"stale: it belongs to model {'b' * 16}, the run now holds model {'a' * 16}"
    assert "an unnamed model" in why_stale(None, "a" * 16)
    # Where the run's own model is not known, nothing can be said.
    assert why_stale("b" * 16, None) is why_stale(None, None) is None


@pytest.mark.parametrize(
    ("document", "stamp"),
    [
        ({"run": {"model": "a"}}, "a"),
        ({"model": "b"}, "b"),
        ({"run": {"model": "a"}, "model": "b"}, "a"),
        ({"run": {"model": None}}, None),
        ({"run": {"model": 3}}, None),
        ({"run": "x", "model": "b"}, "b"),
        ({}, None),
        ([], None),
        (None, None),
    ],
    ids=str,
)
def test_the_stamp_of_a_document(document, stamp):
    assert stamp_of(document) == stamp


def test_the_stamp_of_rows():
    assert stamp_of_rows([{"model": "a"}, {"model": "a"}]) == "a"
    assert stamp_of_rows([{"model": ""}]) is stamp_of_rows([{"x": 1}]) is stamp_of_rows([]) is None
