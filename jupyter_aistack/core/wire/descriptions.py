"""What the docstrings of records say about each field, for the OpenAPI document."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

_JSON_WORDS = {"None": "null", "True": "true", "False": "false"}
_ENTRY = re.compile(r"(?P<names>\w+(?:, \w+)*): (?P<text>.+)")


def described(
    schemas: Mapping[str, Any], records: Mapping[str, type]
) -> dict[str, Any]:
    """The schemas, with what the docstrings of their records say.

    Args:
        schemas: JSON Schemas by name; descriptions that they have are kept.
        records: the class that a schema describes, by the name of the schema.
    """
    result = dict(schemas)
    for name, record in records.items():
        descriptions = field_descriptions(record)
        properties = {
            field: _with_description(schema, descriptions.get(field, ""))
            for field, schema in schemas[name]["properties"].items()
        }
        result[name] = {**schemas[name], "properties": properties}
    return result


def _with_description(schema: dict[str, Any], description: str) -> dict[str, Any]:
    if description:
        return {"description": description, **schema}
    return schema


def field_descriptions(cls: type) -> dict[str, str]:
    """The ``Attributes:`` of a class's docstring, each as a sentence.

    Args:
        cls: a class with a docstring in Google style; without such a section there are
            no descriptions.
    """
    described: dict[str, str] = {}
    for entry in _entries(inspect.getdoc(cls) or ""):
        match = _ENTRY.fullmatch(entry)
        if match is None:
            continue
        for name in match["names"].split(", "):
            described[name] = _sentence(match["text"])
    return described


def _entries(docstring: str) -> Iterator[str]:
    """The entries of the section, each on one line."""
    _, _, section = docstring.partition("\nAttributes:\n")
    # What is indented further than an entry continues it.
    joined = re.sub(r"\n {5,}", " ", section)
    for line in joined.splitlines():
        if not line.startswith("    "):
            return
        yield line.strip()


def _sentence(text: str) -> str:
    """The text in the words of JSON and without marks of reStructuredText."""
    plain = text.replace("``", "`")
    for python, json in _JSON_WORDS.items():
        plain = re.sub(rf"\b{python}\b", json, plain)
    if not plain.endswith("."):
        plain = f"{plain}."
    first = plain[0].upper()
    return first + plain[1:]
