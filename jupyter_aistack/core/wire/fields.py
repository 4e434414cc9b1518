"""Dataclasses to and from JSON, derived from their fields and type hints.

A record is described once, by its dataclass. What is different on a wire (a field that
is not sent, a property that is, a list in place of a mapping) is stated where the
record is registered. All hints are read when a converter is built, so that writing a
value costs little more than copying its fields.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from operator import attrgetter
from typing import Any, Generic, TypeVar, Union

JSON = dict[str, Any]
Convert = Callable[[Any], Any]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Converter:
    """How the values of one type are written, read and described.

    Attributes:
        write: a value to JSON; None where it is JSON already.
        read: JSON to a value; None where that is the same.
        schema: the JSON Schema of what is written.
    """

    write: Convert | None = None
    read: Convert | None = None
    schema: JSON = field(default_factory=dict)


def described(converter: Converter, **keywords: Any) -> Converter:
    """The converter with more keywords in its schema."""
    return dataclasses.replace(converter, schema={**converter.schema, **keywords})


class Converters:
    """The converters of a medium, by type.

    Args:
        basic: those of types that are neither enums, containers nor registered records.

    Attributes:
        records: the registered records.
    """

    def __init__(self, basic: Mapping[Any, Converter]) -> None:
        self._known: dict[Any, Converter] = dict(basic)
        self.records: list[Record[Any]] = []

    def record(self, cls: type[T], **options: Any) -> Record[T]:
        """Register a dataclass, so that it may be a field of others too.

        Args:
            options: as those of `Record`.
        """
        made = Record(cls, self, **options)
        self.records.append(made)
        self._known[cls] = Converter(
            write=made.to_dict,
            read=made.from_dict,
            schema={"$ref": f"#/components/schemas/{made.name}"},
        )
        return made

    def of(self, hint: Any) -> Converter:
        """The converter of a type.

        Raises:
            TypeError: nothing says how values of that type are written.
        """
        known = self._known.get(hint)
        if known is None:
            known = self._known[hint] = self._build(hint)
        return known

    def _build(self, hint: Any) -> Converter:
        is_enum = isinstance(hint, type) and issubclass(hint, Enum)
        if is_enum:
            return _enum(hint)
        origin = typing.get_origin(hint)
        arguments = typing.get_args(hint)
        if origin in (Union, types.UnionType):
            return _optional(self._without_none(hint, arguments))
        if origin in (tuple, frozenset):
            items = self.of(arguments[0])
            return _list(origin, items)
        is_mapping = isinstance(origin, type) and issubclass(origin, Mapping)
        if is_mapping:
            values = self.of(arguments[1])
            return _mapping(values)
        raise TypeError(f"nothing says how {hint!r} is written")

    def _without_none(self, hint: Any, arguments: tuple[Any, ...]) -> Converter:
        others = [each for each in arguments if each is not type(None)]
        if len(others) != 1:
            raise TypeError(f"nothing says which of {hint!r} a value is")
        return self.of(others[0])


class Record(Generic[T]):
    """Writes and reads one dataclass.

    Args:
        cls: the dataclass.
        converters: those of the fields' types.
        name: of its schema; that of the class unless given.
        hidden: fields that are not written; read, they have their default.
        properties: properties of `cls` that are written, each after a field; reading
            leaves them out.
        formats: converters of fields that are not written as their type is.
        sources: attributes of the class that are written in place of a field.
        sparse: fields at their default are not written.
        is_described: the interface's description has a schema of its name.
    """

    def __init__(
        self,
        cls: type[T],
        converters: Converters,
        *,
        name: str = "",
        hidden: Iterable[str] = (),
        properties: Mapping[str, str] | None = None,
        formats: Mapping[str, Converter] | None = None,
        sources: Mapping[str, str] | None = None,
        sparse: bool = False,
        is_described: bool = True,
    ) -> None:
        self.cls = cls
        self.name = name or cls.__name__
        self.is_described = is_described
        self._fields = _fields_of(cls, set(hidden))
        self._names = _with_properties(self._fields, properties or {})

        used = _used_converters(cls, converters, self._names, formats or {})
        self._properties = {key: used[key].schema for key in self._names}
        sources = sources or {}
        self._get = _getter(tuple(sources.get(name, name) for name in self._names))
        self._writers = _writers(used)
        self._readers = _readers(used, self._fields)
        self._defaults = _defaults(cls) if sparse else {}

    def schema(self, added: Mapping[str, JSON] | None = None) -> JSON:
        """The JSON Schema of what is written; `added` are properties that come from
        elsewhere.
        """
        properties = {**self._properties, **(added or {})}
        required = [key for key in properties if key not in self._defaults]
        return {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }

    @property
    def written(self) -> frozenset[str]:
        """The fields and properties that are written."""
        return frozenset(self._names)

    def to_dict(self, value: T) -> JSON:
        data = dict(zip(self._names, self._get(value), strict=True))
        if self._defaults:
            data = self._without_defaults(data)
        for key, write in self._writers:
            if key in data:
                data[key] = write(data[key])
        return data

    def _without_defaults(self, data: JSON) -> JSON:
        defaults = self._defaults
        return {
            key: value
            for key, value in data.items()
            if key not in defaults or value != defaults[key]
        }

    def from_dict(self, data: Mapping[str, Any]) -> T:
        """The value; a field that is missing has its default, and what is no field is
        ignored.
        """
        values = {key: data[key] for key in self._fields if key in data}
        for key, read in self._readers:
            if key in values:
                values[key] = read(values[key])
        return self.cls(**values)


def _getter(names: tuple[str, ...]) -> Callable[[Any], tuple[Any, ...]]:
    if len(names) > 1:
        return attrgetter(*names)
    # For one name alone it would give the value instead of a tuple.
    get_all = [attrgetter(name) for name in names]
    return lambda value: tuple(get(value) for get in get_all)


def _fields_of(cls: type, hidden: set[str]) -> tuple[str, ...]:
    names = [each.name for each in dataclasses.fields(cls) if each.init]
    unknown = hidden.difference(names)
    if unknown:
        missing = ", ".join(sorted(unknown))
        raise TypeError(f"{cls.__name__} has no field {missing}")
    return tuple(name for name in names if name not in hidden)


def _with_properties(
    fields: tuple[str, ...], properties: Mapping[str, str]
) -> tuple[str, ...]:
    names = list(fields)
    for name, after in properties.items():
        names.insert(names.index(after) + 1, name)
    return tuple(names)


def _used_converters(
    cls: type,
    converters: Converters,
    names: Iterable[str],
    formats: Mapping[str, Converter],
) -> dict[str, Converter]:
    hints = typing.get_type_hints(cls)
    used = {}
    for name in names:
        if name in formats:
            used[name] = formats[name]
            continue
        hint = hints.get(name) or _type_of_property(cls, name)
        used[name] = converters.of(hint)
    return used


def _type_of_property(cls: type, name: str) -> Any:
    getter = getattr(cls, name).fget
    return typing.get_type_hints(getter)["return"]


def _writers(used: Mapping[str, Converter]) -> tuple[tuple[str, Convert], ...]:
    writers: list[tuple[str, Convert]] = []
    for key, converter in used.items():
        if converter.write is not None:
            writers.append((key, converter.write))
    return tuple(writers)


def _readers(
    used: Mapping[str, Converter], fields: Iterable[str]
) -> tuple[tuple[str, Convert], ...]:
    readers: list[tuple[str, Convert]] = []
    for key in fields:
        read = used[key].read
        if read is not None:
            readers.append((key, read))
    return tuple(readers)


def _defaults(cls: type) -> dict[str, Any]:
    pairs = ((each.name, each.default) for each in dataclasses.fields(cls))
    missing = dataclasses.MISSING
    return {name: default for name, default in pairs if default is not missing}


def _enum(kind: type[Enum]) -> Converter:
    values = {member: member.value for member in kind}
    members = {member.value: member for member in kind}

    def read(value: Any) -> Enum:
        # Called for a value that is none as well, which raises and names it.
        return members.get(value) or kind(value)

    schema = {
        "type": "string",
        "title": kind.__name__,
        "enum": list(values.values()),
    }
    return Converter(write=values.__getitem__, read=read, schema=schema)


def _optional(some: Converter) -> Converter:
    schema = {"anyOf": [some.schema, {"type": "null"}]}
    return Converter(
        write=_unless_none(some.write), read=_unless_none(some.read), schema=schema
    )


def _unless_none(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None

    def converted(value: Any) -> Any:
        if value is None:
            return None
        return convert(value)

    return converted


def _list(container: type, item: Converter) -> Converter:
    is_sorted = container is frozenset
    write_item = item.write
    read_item = item.read

    def write(values: Any) -> list[Any]:
        ordered = sorted(values) if is_sorted else values
        if write_item is None:
            return list(ordered)
        return [*map(write_item, ordered)]

    def read(values: Any) -> Any:
        return container(values if read_item is None else map(read_item, values))

    return Converter(
        write=write, read=read, schema={"type": "array", "items": item.schema}
    )


def _mapping(value: Converter) -> Converter:
    write_value = value.write or _same
    read_value = value.read or _same

    def write(values: Mapping[str, Any]) -> JSON:
        return {key: write_value(each) for key, each in values.items()}

    def read(values: Mapping[str, Any]) -> JSON:
        return {key: read_value(each) for key, each in values.items()}

    schema = {"type": "object", "additionalProperties": value.schema}
    return Converter(write=write, read=read, schema=schema)


def _same(value: Any) -> Any:
    return value
