"""What is true of the verbs of a broker, whoever carries them: which change nothing,
which may be called twice, and after which others look anew. A new verb belongs into each
list that it is fit for.
"""

from __future__ import annotations

READING_VERBS = frozenset(
    {
        "advise",
        "audit",
        "audit_verify",
        "bill",
        "device_clients",
        "device_hiding",
        "device_use",
        "events",
        "host",
        "hosts",
        "kernel_leases",
        "kernel_requests",
        "leases",
        "listed",
        "mig_plan",
        "mine",
        "orders",
        "queue",
        "report",
        "report_kernels",
        "reservations",
        "snapshot",
        "usage",
        "whoami",
    }
)
"""Verbs that change nothing that is shown; of all others it is taken that they may."""

REPEATABLE_VERBS = frozenset(
    {
        "acquire",
        "activate",
        "advise",
        "audit",
        "audit_verify",
        "begin_cell",
        "bill",
        "bind",
        "bind_kernel",
        "breach_handled",
        "breach_postponed",
        "cancel",
        "device_clients",
        "device_hiding",
        "device_use",
        "end_cell",
        "events",
        "host",
        "hosts",
        "kernel_leases",
        "kernel_requests",
        "leases",
        "listed",
        "mig_plan",
        "mine",
        "pin",
        "prepare",
        "queue",
        "release",
        "report",
        "report_kernels",
        "reservations",
        "snapshot",
        "take_back",
        "unpin",
        "usage",
        "wait_for",
        "whoami",
    }
)
"""Verbs that may be called again when the answer was lost."""

CHANGING_VERBS = frozenset(
    {
        "request",
        "cancel",
        "take_back",
        "activate",
        "bind",
        "extend",
        "release",
        "reserve",
        "unreserve",
        "drain",
        "undrain",
        "quarantine",
        "suspend",
        "resume",
        "pin",
        "unpin",
        "begin_cell",
        "end_cell",
    }
)
"""Verbs after which those who show leases and requests read them anew."""
