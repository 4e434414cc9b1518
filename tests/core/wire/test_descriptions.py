"""What the OpenAPI document says of a field is what the docstring of its record says."""

from __future__ import annotations

from dataclasses import dataclass

from jupyter_aistack.core.wire.descriptions import described, field_descriptions


@dataclass(frozen=True)
class Record:
    """A record.

    Attributes:
        id: unique, opaque.
        began_at, ended_at: when it began and ended; None while that is not known,
            and never before ``id``.
        bare:

    Only fields are described.
    """

    id: str
    began_at: float | None
    ended_at: float | None
    bare: int


def test_attributes_become_sentences_in_the_words_of_json() -> None:
    times = (
        "When it began and ended; null while that is not known, and never before `id`."
    )
    assert field_descriptions(Record) == {
        "id": "Unique, opaque.",
        "began_at": times,
        "ended_at": times,
    }


def test_class_without_attributes_has_no_descriptions() -> None:
    class Undocumented:
        pass

    assert field_descriptions(Undocumented) == {}


def test_schema_keeps_what_it_says_itself() -> None:
    schemas = {
        "Record": {
            "properties": {
                "id": {"type": "string"},
                "began_at": {"type": "number", "description": "Its own."},
                "bare": {"type": "integer"},
            }
        },
        "Other": {"type": "string"},
    }
    result = described(schemas, {"Record": Record})
    assert result["Record"]["properties"] == {
        "id": {"type": "string", "description": "Unique, opaque."},
        "began_at": {"type": "number", "description": "Its own."},
        "bare": {"type": "integer"},
    }
    assert result["Other"] is schemas["Other"]
    assert "description" not in schemas["Record"]["properties"]["id"]
