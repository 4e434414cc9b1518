"""The part of the ledger port that is about machines."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jupyter_aistack.core.model.drain import Drain
from jupyter_aistack.core.model.host import HostIdentity, HostReport


class HostLedger(ABC):
    """Which machines share a ledger, what each has told of itself, and which of their
    devices are out of placement by hand.
    """

    @abstractmethod
    def register_host(self, host: HostIdentity, now: float) -> tuple[str, ...]:
        """Write down what a machine is called. Registering twice is registering once.

        What was written under its name alone, by versions that knew no better, becomes
        its own.

        Returns:
            Ids of machines that it may have been before it was started again.
        """

    @abstractmethod
    def succeed_host(self, before: str, host: HostIdentity, now: float) -> None:
        """A machine has been started again, and all processes of its run `before` are
        gone: its leases end as abandoned, its requests are withdrawn, its reservations
        are the new run's.
        """

    @abstractmethod
    def report_host(self, report: HostReport) -> tuple[HostReport, ...]:
        """Write down what a host tells of itself, unless that is known and recent.

        Returns:
            What the others have told, as `host_reports` does.
        """

    @abstractmethod
    def host_reports(self) -> tuple[HostReport, ...]:
        """The last report of each broker of each host, by host and allowance."""

    @abstractmethod
    def drain(self, drain: Drain, now: float) -> None:
        """Take a device out of placement, in place of what was written of it by hand,
        and tell those who hold a part of it.
        """

    @abstractmethod
    def undrain(self, host: str, device_id: str, now: float) -> Drain | None:
        """Have a device granted again, and forget that its leases were told. Returns
        what was written; None where nothing was.
        """

    @abstractmethod
    def end_drains(self, host: str, now: float) -> tuple[Drain, ...]:
        """The same for all devices of a host whose time is over."""
