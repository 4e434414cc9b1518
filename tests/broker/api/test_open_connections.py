"""Who has most of the connections makes room for who has fewer."""

from __future__ import annotations

from jupyter_aistack.broker.api.open_connections import (
    ConnectionLimits,
    OpenConnections,
)


class Connection:
    """A connection that remembers whether it was cut."""

    is_cut = False

    def abort(self) -> None:
        self.is_cut = True


def test_a_user_may_have_so_many_and_others_are_let_in() -> None:
    opened = OpenConnections(ConnectionLimits(connections_per_user=2))
    first, second = Connection(), Connection()
    assert opened.admit(1, first) is None
    assert opened.admit(1, second) is None
    refused = opened.admit(1, Connection())
    assert refused is not None
    assert "your user has 2 connections open" in refused.message
    assert opened.admit(2, Connection()) is None
    opened.remove(1, first)
    opened.remove(1, first)
    assert opened.admit(1, Connection()) is None
    assert not second.is_cut


def test_where_all_are_taken_the_oldest_of_whoever_has_most_goes() -> None:
    opened = OpenConnections(ConnectionLimits(connections=4))
    hoard = [Connection() for _ in range(3)]
    for connection in hoard:
        assert opened.admit(1, connection) is None
    assert opened.admit(2, Connection()) is None
    refused = opened.admit(1, Connection())
    assert refused is not None
    assert "nobody has more of them than you" in refused.message
    assert opened.admit(3, Connection()) is None
    assert [connection.is_cut for connection in hoard] == [True, False, False]
    opened.remove(1, hoard[0])
    refused = opened.admit(2, Connection())
    assert refused is not None, "it would have as many as whoever has most"


def test_a_user_without_any_is_let_in_as_long_as_somebody_has_two() -> None:
    opened = OpenConnections(ConnectionLimits(connections=4))
    for uid in (1, 1, 2, 3):
        assert opened.admit(uid, Connection()) is None
    assert opened.admit(9, Connection()) is None
    assert opened.admit(10, Connection()) is not None, "each has one"
