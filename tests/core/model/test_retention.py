"""For how long what has happened is kept."""

from __future__ import annotations

from jupyter_aistack.core.model.retention import DAY_SECONDS, Retention

NOW = 100 * DAY_SECONDS + 5.0


def test_what_ends_on_a_day_leaves_together() -> None:
    retention = Retention(seconds=90 * DAY_SECONDS)
    assert retention.before(NOW) == 10 * DAY_SECONDS
    assert retention.before(NOW + DAY_SECONDS - 6) == 10 * DAY_SECONDS
    assert retention.before(NOW + DAY_SECONDS) == 11 * DAY_SECONDS


def test_what_is_kept_for_ever_never_leaves() -> None:
    assert Retention().before(NOW) is None
    assert not Retention().is_pseudonymous(0.0, NOW)


def test_names_go_with_time_or_at_once() -> None:
    later = Retention(pseudonym_seconds=5.0)
    assert later.is_pseudonymous(NOW - 5.0, NOW)
    assert not later.is_pseudonymous(NOW - 4.0, NOW)
    assert Retention(pseudonym_seconds=0.0).is_pseudonymous(NOW, NOW)
