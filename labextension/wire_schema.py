"""JSON Schemas as TypeScript: which types and decoders they come to.

Of JSON Schema it knows what the OpenAPI document uses, and four keywords in a special
sense:

- ``title`` names an enum or an object that is described in place,
- ``default`` is what a value is taken for where a server does not send it,
- ``description`` of a schema becomes a comment; that of a field stays in the document,
  so that a better word there is no change here,
- ``x-extensible`` marks an enum to which newer servers may add values: plain text here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]

READ: Mapping[str, tuple[str, ...]] = {"UsageSummary": ("leases",)}
"""The fields that the page reads of a schema, where it does not need them all."""

_SCALARS = {
    "string": ("string", "text"),
    "integer": ("number", "number"),
    "number": ("number", "number"),
    "boolean": ("boolean", "flag"),
}
BASIC_DECODERS = (
    "anything",
    "flag",
    "list",
    "nullable",
    "number",
    "oneOf",
    "optional",
    "shape",
    "table",
    "text",
)


class UnsupportedSchema(Exception):
    """The document says something in a way that has no translation; names the place."""


@dataclass(frozen=True)
class Expression:
    """A schema in TypeScript: as a type, and as the decoder of that type."""

    type: str
    decoder: str


@dataclass(frozen=True)
class Property:
    """A field of an interface."""

    name: str
    value: Expression
    may_be_left_out: bool


@dataclass(frozen=True)
class Interface:
    """An object with fixed fields."""

    name: str
    properties: tuple[Property, ...]
    description: str

    @property
    def type_name(self) -> str:
        return f"I{self.name}"


@dataclass(frozen=True)
class Enumeration:
    """A choice of texts."""

    name: str
    values: tuple[str, ...]
    description: str

    @property
    def type_name(self) -> str:
        return self.name


Declaration = Interface | Enumeration


@dataclass
class Translator:
    """Collects the declarations that schemas need, each after those it refers to."""

    schemas: Mapping[str, Schema]
    declarations: dict[str, Declaration] = field(default_factory=dict)

    def declare(self, name: str) -> Declaration:
        """The declaration of the schema called `name`."""
        if name not in self.schemas:
            raise UnsupportedSchema(f"{name}: the document has no such schema")
        return self._declare(name, self.schemas[name])

    def _declare(self, name: str, schema: Schema) -> Declaration:
        known = self.declarations.get(name)
        if known is None:
            made = self._translate(name, schema)
            # Set only now, so that whatever it refers to has come before it.
            known = self.declarations.setdefault(name, made)
        return known

    def _translate(self, name: str, schema: Schema) -> Declaration:
        description = schema.get("description", "")
        if "enum" in schema:
            return Enumeration(name, tuple(schema["enum"]), description)
        if "properties" not in schema:
            raise UnsupportedSchema(
                f"{name}: neither an object with fields nor an enum"
            )
        properties = tuple(
            self._property(name, key, value, is_required=key in schema["required"])
            for key, value in schema["properties"].items()
            if key in READ.get(name, schema["properties"])
        )
        return Interface(name, properties, description)

    def _property(
        self, owner: str, name: str, schema: Schema, *, is_required: bool
    ) -> Property:
        place = f"{owner}.{name}"
        may_be_left_out = not is_required and "default" not in schema
        # What the field means is not what the enum or object in it is.
        bare = {key: word for key, word in schema.items() if key != "description"}
        value = self._with_default(bare, place)
        return Property(name, value, may_be_left_out)

    def _with_default(self, schema: Schema, place: str) -> Expression:
        if "default" not in schema:
            return self._expression(schema, place)
        default = schema["default"]
        known, is_nullable = _without_null(schema, place)
        value = self._expression(known, place)
        if default is None:
            return _nullable(value)
        if is_nullable and not isinstance(default, str):
            raise UnsupportedSchema(f"{place}: null would be taken for {default!r}")
        return Expression(value.type, f"optional({value.decoder}, {literal(default)})")

    def _expression(self, schema: Schema, place: str) -> Expression:
        known, is_nullable = _without_null(schema, place)
        if is_nullable:
            return _nullable(self._expression(known, place))
        if "$ref" in schema:
            return self._named(schema["$ref"].rsplit("/", 1)[-1])
        if "const" in schema:
            value = literal(schema["const"])
            return Expression(value, f"oneOf({value})")
        if "enum" in schema:
            return self._enum(schema, place)
        return self._by_type(schema, place)

    def _enum(self, schema: Schema, place: str) -> Expression:
        if schema.get("x-extensible", False):
            return Expression(*_SCALARS["string"])
        return self._in_place(schema, place)

    def _by_type(self, schema: Schema, place: str) -> Expression:
        kind = schema.get("type")
        if kind is None and not schema:
            return Expression("unknown", "anything")
        if kind == "array":
            item = self._expression(schema["items"], f"{place}[]")
            item_type = f"({item.type})" if "|" in item.type else item.type
            return Expression(f"{item_type}[]", f"list({item.decoder})")
        if kind == "object":
            return self._object(schema, place)
        if kind not in _SCALARS:
            raise UnsupportedSchema(f"{place}: no translation for {dict(schema)!r}")
        return Expression(*_SCALARS[kind])

    def _object(self, schema: Schema, place: str) -> Expression:
        if "properties" in schema:
            return self._in_place(schema, place)
        value = self._expression(schema.get("additionalProperties", {}), f"{place}{{}}")
        return Expression(f"Record<string, {value.type}>", f"table({value.decoder})")

    def _in_place(self, schema: Schema, place: str) -> Expression:
        if "title" not in schema:
            raise UnsupportedSchema(f"{place}: needs a title, by which it is called")
        name = schema["title"]
        declaration = self._declare(name, schema)
        if self._translate(name, schema) != declaration:
            raise UnsupportedSchema(f"{place}: another schema is called {name}")
        return self._refer(declaration)

    def _named(self, name: str) -> Expression:
        return self._refer(self.declare(name))

    def _refer(self, declaration: Declaration) -> Expression:
        return Expression(declaration.type_name, decoder_name(declaration.name))


def _without_null(schema: Schema, place: str) -> tuple[Schema, bool]:
    """The schema of the values that are not null, and whether null is allowed."""
    kind = schema.get("type")
    if isinstance(kind, list) and "null" in kind:
        [other] = [name for name in kind if name != "null"]
        return {**schema, "type": other}, True
    choices = schema.get("anyOf")
    if choices is None:
        return schema, False
    others = [choice for choice in choices if choice.get("type") != "null"]
    if len(others) != 1:
        raise UnsupportedSchema(f"{place}: a choice of {len(others)} schemas")
    return others[0], len(others) < len(choices)


def _nullable(value: Expression) -> Expression:
    return Expression(f"{value.type} | null", f"nullable({value.decoder})")


def literal(value: object) -> str:
    """A JSON value as prettier would have it in TypeScript."""
    if isinstance(value, str):
        return "'" + json.dumps(value)[1:-1].replace("'", "\\'") + "'"
    if value in ([], {}) or isinstance(value, bool | int | float):
        return json.dumps(value)
    raise UnsupportedSchema(f"no translation for the default {value!r}")


def decoder_name(name: str) -> str:
    """Such as ``migInstance`` for ``MIGInstance``."""
    first = re.match(r"[A-Z]+(?![a-z])|[A-Z]", name)
    if first is None:
        raise UnsupportedSchema(f"{name}: names of schemas begin with a capital letter")
    camel = first[0].lower() + name[first.end() :]
    if camel in BASIC_DECODERS:
        raise UnsupportedSchema(f"{name}: {camel} is the name of a basic decoder")
    return camel
