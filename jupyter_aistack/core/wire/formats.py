"""How plain values are written, read and described on the wire; records are registered
with `WIRE`.
"""

from __future__ import annotations

from fractions import Fraction

from jupyter_aistack.core.model.spec import Spec, parse_spec

from .fields import JSON, Converter, Converters

TEXT: JSON = {"type": "string"}
FLAG: JSON = {"type": "boolean"}
COUNT: JSON = {"type": "integer", "minimum": 0}
WHOLE: JSON = {"type": "integer"}
NUMBER: JSON = {"type": "number"}
SHARE: JSON = {
    "type": "string",
    "pattern": "^[0-9]+(/[0-9]+)?$",
    "examples": ["1/4", "1"],
}

WIRE = Converters(
    {
        str: Converter(schema=TEXT),
        bool: Converter(schema=FLAG),
        int: Converter(schema=COUNT),
        float: Converter(schema=NUMBER),
        Fraction: Converter(write=str, read=Fraction, schema=SHARE),
        Spec: Converter(write=str, read=parse_spec, schema=TEXT),
    }
)
"""The converters of the wire; a record that is registered may be a field of others."""
