"""Records of the wire that the process of a holder reads and writes: what it is given,
and what it reports.

Apart from the others, for the first ``%gpu`` of a kernel imports these and waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from jupyter_aistack.core.enforcement.device_visibility import (
    DeviceVisibility,
    RuntimeProbe,
)
from jupyter_aistack.core.enforcement.preparation import Expectation, Preparation
from jupyter_aistack.core.model.condition import Condition, Conditions

from .fields import Converter
from .formats import WIRE

CONDITION = WIRE.record(Condition)
EXPECTATION = WIRE.record(Expectation, sparse=True, is_described=False)
WIRE.record(RuntimeProbe, is_described=False)
WIRE.record(DeviceVisibility, is_described=False)
PREPARATION = WIRE.record(
    Preparation,
    formats={
        # Only Python reads it.
        "visibility": replace(
            WIRE.of(tuple[DeviceVisibility, ...]),
            schema={
                "type": "array",
                "items": {"type": "object", "additionalProperties": {}},
            },
        ),
        # Only Python reads what is expected, and the names may grow.
        "expects": Converter(
            write=EXPECTATION.to_dict,
            read=EXPECTATION.from_dict,
            schema={"type": "object", "additionalProperties": {}},
        ),
    },
)


def conditions_from_list(data: Iterable[Mapping[str, Any]]) -> Conditions:
    return tuple(map(CONDITION.from_dict, data))
