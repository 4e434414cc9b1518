from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jupyter_aistack.core.model.device import DeviceKind
from jupyter_aistack.core.model.spec import Spec, Unit, parse_spec
from jupyter_aistack.core.model.units import GIB
from jupyter_aistack.exceptions import InvalidRequest

QUARTER = Spec(unit=Unit.FRACTION, amount=Fraction(1, 4))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("1/4", QUARTER),
        (" 0.25 ", QUARTER),
        ("2/8", QUARTER),
        ("20GiB", Spec(unit=Unit.MEMORY, amount=Fraction(20 * GIB))),
        ("1.5 gib", Spec(unit=Unit.MEMORY, amount=Fraction(3 * GIB, 2))),
        ("2", Spec(unit=Unit.DEVICES, amount=Fraction(2))),
        ("1/1", Spec(unit=Unit.DEVICES, amount=Fraction(1))),
        ("1.0x3", Spec(unit=Unit.DEVICES, amount=Fraction(3))),
        ("1/2x2", Spec(unit=Unit.FRACTION, amount=Fraction(1, 2), count=2)),
        (
            "1g.18gb",
            Spec(
                unit=Unit.PROFILE,
                amount=Fraction(1),
                target=DeviceKind.GPU,
                profile="1g.18gb",
            ),
        ),
        (
            "1g.18gbx2",
            Spec(
                unit=Unit.PROFILE,
                amount=Fraction(1),
                count=2,
                target=DeviceKind.GPU,
                profile="1g.18gb",
            ),
        ),
        ("cpu:2", Spec(unit=Unit.CORES, amount=Fraction(2), target=DeviceKind.CPU)),
        (
            "cpu:1/4",
            Spec(unit=Unit.FRACTION, amount=Fraction(1, 4), target=DeviceKind.CPU),
        ),
        (
            "GPU:1/4",
            Spec(unit=Unit.FRACTION, amount=Fraction(1, 4), target=DeviceKind.GPU),
        ),
        ("1/4,cpu:8", replace(QUARTER, host_cores=8)),
        (
            "1/4, mem:64GiB, CPU:8",
            replace(QUARTER, host_cores=8, host_memory_bytes=64 * GIB),
        ),
        ("1/4,model:H100|a100", replace(QUARTER, models=("a100", "h100"))),
    ],
)
def test_every_form_of_the_grammar_is_read(text: str, spec: Spec) -> None:
    assert parse_spec(text) == spec


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "0/4", "1/0", "5/4", "nan", "inf", "1e3", "1000000000", "0GiB", "GiB", "1/4x0", "1/4x", "x2",
     "cpu:", "tpu:1", "gpu:gpu:1", "9g.80gb", "cpu:1g.10gb", "1//4", "１/４", "1/4; rm", "0.0000001", "1/999999999",
     "\x00", "1/4,", "1/4,cpu:0", "1/4,cpu:1.5", "1/4,mem:0GiB", "1/4,mem:8", "1/4,model:", "1/4,gpu:1",
     "1/4,cpu:1,cpu:2", "cpu:2,mem:1GiB", ",cpu:2"],
)  # fmt: skip
def test_what_cannot_be_understood_names_the_field_and_shows_what_is_allowed(
    text: str,
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_spec(text)
    assert caught.value.facts["field"] == "spec"
    assert "\n" not in caught.value.message.replace(repr(text), "")


@given(
    st.one_of(
        st.builds(
            lambda n, d, c: f"{n}/{n + d}x{c}",
            st.integers(1, 400),
            st.integers(1, 500),
            st.integers(1, 1024),
        ),
        st.builds(lambda n: f"{n}MiB", st.integers(1, 10**6)),
        st.builds(str, st.integers(1, 1024)),
        st.builds(
            lambda k, n: f"{k}:{n}",
            st.sampled_from(["cpu", "gpu"]),
            st.integers(1, 1024),
        ),
        st.builds(lambda g, m: f"{g}g.{m}gb", st.integers(1, 7), st.integers(1, 300)),
        st.builds(
            lambda c, m: f"1/2x2,mem:{m}MiB,cpu:{c},model:h100",
            st.integers(1, 9999),
            st.integers(1, 10**6),
        ),
    )
)
@example("cpu:1.0")
@example("cpu:1.0x2")
def test_the_text_of_a_spec_reads_back_as_the_same_spec(text: str) -> None:
    spec = parse_spec(text)
    assert parse_spec(str(spec)) == spec


@given(st.text(max_size=40))
def test_any_text_is_a_spec_or_one_clear_error(text: str) -> None:
    try:
        spec = parse_spec(text)
    except InvalidRequest:
        return
    assert spec.amount > 0
    assert 1 <= spec.count <= 1024


def test_a_whole_cpu_and_one_core_of_it_are_two_texts() -> None:
    whole, core = parse_spec("cpu:1.0"), parse_spec("cpu:1")
    assert (whole.text, core.text) == ("cpu:1/1", "cpu:1")
    assert whole != core
    assert hash(whole) != hash(core)


def test_an_error_repeats_only_the_beginning_of_what_is_long() -> None:
    with pytest.raises(InvalidRequest) as error:
        parse_spec("x" * 100_000)
    assert "xxx... is not a slice" in error.value.message
    assert len(error.value.message) < 500
