"""The ceiling of a request: the share of a device that its lease may use while nobody
else needs it.
"""

from __future__ import annotations

import re
from fractions import Fraction

from jupyter_aistack.exceptions import InvalidRequest

from .spec import MAX_DENOMINATOR, Spec, Unit

_ALLOWED = "write a share of a device: 1/2, 0.5 or 1/1"
_SHARE = re.compile(r"-?(?:\d{1,9}(?:/\d{1,9})?|\d{0,9}\.\d{1,9})", re.ASCII)
"""No exponents: of `1e-999999999` Python would work out all digits, for hours."""
_WITH_CEILING = frozenset({Unit.FRACTION, Unit.MEMORY, Unit.CORES})


def parse_ceiling(text: str, spec: Spec) -> Fraction | None:
    """The ceiling of a request for `spec`; None for an empty text: it has none.

    Raises:
        InvalidRequest: naming the field ``up_to``.
    """
    if not isinstance(text, str):
        raise _invalid(f"{text!r} is no text; {_ALLOWED}")
    if not text.strip():
        return None
    ceiling = _share(text.strip())
    if spec.unit not in _WITH_CEILING:
        kind = "a MIG profile" if spec.unit is Unit.PROFILE else "whole devices"
        raise _invalid(
            f"{spec} is {kind}, and only parts of a device have a ceiling (1/4, 20GiB, "
            "cpu:2)"
        )
    if spec.unit is Unit.FRACTION and ceiling < spec.amount:
        raise below_guarantee(ceiling, spec, spec.amount)
    return ceiling


def below_guarantee(
    ceiling: Fraction, spec: Spec, guaranteed: Fraction
) -> InvalidRequest:
    """The error of a ceiling that is lower than what is guaranteed."""
    return _invalid(
        f"{ceiling} of a device is less than {spec} guarantees ({guaranteed}); leave it "
        "out, or ask for a higher ceiling"
    )


def ceiling_text(ceiling: Fraction) -> str:
    """A ceiling for people: ``1/1`` for a whole device, lest it be taken for a number of
    devices.
    """
    return f"{ceiling.numerator}/{ceiling.denominator}"


def _share(text: str) -> Fraction:
    try:
        share = Fraction(text) if _SHARE.fullmatch(text) else None
    except ZeroDivisionError:
        share = None
    if share is None:
        raise _invalid(f"{text!r} is no share; {_ALLOWED}")
    if not 0 < share <= 1:
        raise _invalid(f"{text} is not within one device; {_ALLOWED}")
    if share.denominator > MAX_DENOMINATOR:
        raise _invalid(
            f"{text} is too fine; a share is a multiple of 1/{MAX_DENOMINATOR} or a "
            "simple fraction below that"
        )
    return share


def _invalid(message: str) -> InvalidRequest:
    return InvalidRequest(f"up_to: {message}", field="up_to")
