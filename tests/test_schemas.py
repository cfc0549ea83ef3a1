"""Schemas made from types: the committed files, what they refuse, and that nothing heavy is needed to use them."""

import subprocess
import sys
from typing import Annotated, Literal, NotRequired

import pytest
from jsonschema import Draft202012Validator
from typing_extensions import TypedDict

from ff.documents.values import Count, DatasetName, Limits, Positive, ReadoutName, Share, Stamp
from ff.schemas import DOCUMENTS, FOLDER, document, schemas, text_of


@pytest.mark.parametrize("name", ["config", *DOCUMENTS])
def test_committed_schemas_are_current(name):
    schema = schemas()[name]
    Draft202012Validator.check_schema(schema)
    committed = (FOLDER / f"{name}.schema.json").read_text()
    assert committed == text_of(schema) + "\n", "python -m ff.schemas writes them anew"


def test_every_schema_is_of_a_type():
    assert {path.name.split(".")[0] for path in FOLDER.iterdir()} == {"config", *DOCUMENTS}


class Inner(TypedDict):
    """A block."""

    share: Share | None
    """of the whole"""


class Outer(TypedDict):
    """A document."""

    schema: Literal[1]
    kind: Literal["a", "b"]
    count: Count
    above: Positive
    stamp: Stamp
    dataset: DatasetName
    readout: ReadoutName
    blocks: Annotated[list[Inner], Limits(minItems=1)]
    block: Annotated[Inner, Limits(patternProperties={"^x_": {"type": "number"}})]
    by_name: dict[str, int]
    maybe: NotRequired[bool | None]


RIGHT = {
    **{"schema": 1, "kind": "a", "count": 0, "above": 0.1, "stamp": "0123456789abcdef", "dataset": "MNIST"},
    **{"readout": "goodness", "blocks": [{"share": 1}], "block": {"share": None, "x_1": 2}, "by_name": {"n": 1}},
}


@pytest.mark.parametrize(
    "change",
    [
        *({"schema": 2}, {"kind": "c"}, {"count": -1}, {"count": 0.5}, {"count": True}, {"count": None}, {"above": 0}),
        *({"stamp": "0123"}, {"stamp": "0123456789abcdef0"}, {"dataset": "EMNIST"}, {"readout": "tail"}, {"more": 1}),
        *({"blocks": []}, {"blocks": [{}]}, {"blocks": [{"share": 1.1}]}, {"blocks": [{"share": -0.1}]}),
        *({"blocks": [{"share": 1, "more": 1}]}, {"block": {"share": 1, "x_1": "2"}}, {"block": {"share": 1, "y": 1}}),
        *({"by_name": {"n": "1"}}, {"maybe": 1}, {"kind": None}),
    ],
)
def test_what_a_type_does_not_say_is_refused(change):
    check = Draft202012Validator(document(Outer))
    assert check.is_valid(RIGHT)
    assert check.is_valid(RIGHT | {"maybe": None})
    assert not check.is_valid(RIGHT | change)


@pytest.mark.parametrize("missing", RIGHT)
def test_every_key_is_required(missing):
    rest = {key: value for key, value in RIGHT.items() if key != missing}
    assert not Draft202012Validator(document(Outer)).is_valid(rest)


def test_blocks_stand_once_with_their_meaning():
    schema = document(Outer)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$defs"]["Inner"]["description"] == "A block."
    assert schema["$defs"]["Inner"]["properties"]["share"]["description"] == "of the whole"
    assert schema["$defs"]["Outer"]["properties"]["blocks"]["items"] == {"$ref": "#/$defs/Inner"}


def objects(schema, at=""):
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            yield at, schema
        for key, value in schema.items():
            yield from objects(value, f"{at}/{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from objects(value, f"{at}/{index}")


@pytest.mark.parametrize("name", ["config", *DOCUMENTS])
def test_no_block_takes_keys_that_it_does_not_know(name):
    open_ones = {at for at, found in objects(schemas()[name]) if found.get("additionalProperties") is True}
    # What sensors say of a machine is theirs.
    assert open_ones == ({"/$defs/Machine"} if name == "hardware" else set())
    assert all("additionalProperties" in found for _, found in objects(schemas()[name]))


def test_types_and_schemas_are_used_without_what_makes_them():
    code = (
        f"import contextlib, sys; from ff.documents import {', '.join(DOCUMENTS)}\n"
        "from ff.errors import FFError; from ff.workflow.grid import check_config\n"
        f"with contextlib.suppress(FFError): check_config({{}}, {str(FOLDER / 'config.schema.json')!r})\n"
        "print({'torch', 'numpy', 'pandas', 'pydantic'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
