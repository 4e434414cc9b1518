"""Converters that are derived from dataclasses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

import pytest

from jupyter_aistack.core.wire.fields import Converter, Converters, described


class Colour(StrEnum):
    RED = "red"
    NONE = ""


@dataclass(frozen=True, kw_only=True)
class Part:
    share: Fraction
    secret: int = 7


@dataclass(frozen=True, kw_only=True)
class Whole:
    name: str
    colour: Colour = Colour.NONE
    parts: tuple[Part, ...] = ()
    first: Part | None = None
    tags: frozenset[str] = frozenset()
    amounts: Mapping[str, Fraction] = field(default_factory=dict)

    @property
    def loud(self) -> str:
        return self.name.upper()


def converters() -> Converters:
    return Converters(
        {
            str: Converter(schema={"type": "string"}),
            int: Converter(schema={"type": "integer"}),
            Fraction: Converter(
                write=str, read=Fraction, schema={"type": "string", "pattern": "/"}
            ),
        }
    )


WHOLE = Whole(
    name="a",
    colour=Colour.RED,
    parts=(Part(share=Fraction(1, 4)), Part(share=Fraction(1, 2))),
    first=Part(share=Fraction(1)),
    tags=frozenset({"b", "a"}),
    amounts={"x": Fraction(2, 3)},
)


def test_what_is_written_is_json_and_reads_as_the_same_value() -> None:
    known = converters()
    known.record(Part, hidden=["secret"])
    record = known.record(Whole, properties={"loud": "name"})
    data = record.to_dict(WHOLE)
    assert data == {
        "name": "a",
        "loud": "A",
        "colour": "red",
        "parts": [{"share": "1/4"}, {"share": "1/2"}],
        "first": {"share": "1"},
        "tags": ["a", "b"],
        "amounts": {"x": "2/3"},
    }
    assert list(data)[:2] == ["name", "loud"]
    assert record.from_dict(json.loads(json.dumps(data))) == WHOLE


def test_a_field_that_is_missing_has_its_default_and_a_strange_one_is_ignored() -> None:
    known = converters()
    known.record(Part)
    record = known.record(Whole)
    assert record.from_dict({"name": "a", "new": 1}) == Whole(name="a")


def test_a_sparse_record_leaves_out_what_has_its_default() -> None:
    known = converters()
    record = known.record(Part, sparse=True)
    assert record.to_dict(Part(share=Fraction(1))) == {"share": "1"}
    assert record.to_dict(Part(share=Fraction(1), secret=8)) == {
        "share": "1",
        "secret": 8,
    }


def test_the_schema_says_what_is_written() -> None:
    known = converters()
    known.record(Part)
    loud = described(known.of(str), default="")
    schema = known.record(
        Whole, properties={"loud": "name"}, formats={"loud": loud}
    ).schema({"more": {"type": "null"}})
    assert schema["required"] == [*schema["properties"]]
    assert schema["properties"] == {
        "name": {"type": "string"},
        "loud": {"type": "string", "default": ""},
        "colour": {"type": "string", "title": "Colour", "enum": ["red", ""]},
        "parts": {"type": "array", "items": {"$ref": "#/components/schemas/Part"}},
        "first": {"anyOf": [{"$ref": "#/components/schemas/Part"}, {"type": "null"}]},
        "tags": {"type": "array", "items": {"type": "string"}},
        "amounts": {
            "type": "object",
            "additionalProperties": {"type": "string", "pattern": "/"},
        },
        "more": {"type": "null"},
    }


def test_what_nothing_describes_is_refused_when_the_converter_is_built() -> None:
    with pytest.raises(TypeError, match="Part"):
        converters().record(Whole)
    with pytest.raises(TypeError, match="nosuch"):
        converters().record(Part, hidden=["nosuch"])


def test_a_text_that_is_no_member_is_refused_by_name() -> None:
    read = converters().of(Colour).read
    assert read is not None
    with pytest.raises(ValueError, match="blue"):
        read("blue")
