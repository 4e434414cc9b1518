"""The verbs of ``%gpu``: arguments in, calls of the client, a panel out."""

from __future__ import annotations

import time
from argparse import Namespace
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jupyter_aistack.client.display import Panel
from jupyter_aistack.client.text import own_stray_lines
from jupyter_aistack.exceptions import LeaseError
from jupyter_aistack.notebook.panels import views

from .commands import JSON, Answer, Connect, Verbs

if TYPE_CHECKING:
    from jupyter_aistack.notebook.session.lease_sync import LeaseSync

    from .requests import KernelRequests

WEEK_SECONDS = 7 * 86400.0


class GPUCommands:
    """What ``%gpu`` does, a method for each verb.

    Args:
        connect: gives the client.
        requests: asks for this kernel's lease.
        lease_sync: attaches later what is still waited for.
    """

    def __init__(
        self, connect: Connect, requests: KernelRequests, lease_sync: LeaseSync
    ) -> None:
        self._connect = connect
        self._requests = requests
        self._lease_sync = lease_sync

    def verbs(self) -> Verbs:
        """By name, as the parser knows them."""
        return {
            "status": self._status,
            "request": self._request,
            "release": self._release,
            "queue": self._queue,
            "extend": self._extend,
            "suspend": self._change_device_state,
            "resume": self._change_device_state,
            "pin": self._change_device_state,
            "unpin": self._change_device_state,
            "usage": self._usage,
            "advise": self._advise,
        }

    def _status(self, _: Namespace) -> Answer:
        client = self._connect()
        mine = client.mine()
        host = client.host()
        panel = self._status_panel(mine, host)
        return mine, _with_remark(panel, "\n".join(own_stray_lines(host, time.time())))

    def _status_panel(self, mine: JSON, host: JSON) -> Panel:
        """What this kernel holds or waits for; else, what it could have."""
        from jupyter_aistack.client.lease_guard import own_lease, waiting_requests

        now = time.time()
        own = own_lease(mine)
        if own is not None:
            others = [lease for lease in mine["leases"] if lease["id"] != own["id"]]
            usage = self._connect().usage()
            return views.status_panel(own, others, host, usage, now)

        waiting = waiting_requests(mine)
        if waiting:
            return views.waiting_panel(waiting[0], now)
        return views.nothing_panel(host)

    def _request(self, arguments: Namespace) -> Answer:
        own = self._requests.check(arguments)
        if own is not None:
            _, panel = self._status(arguments)
            return {"request": None, "lease": own}, panel

        handle = self._requests.submit(arguments, wait=arguments.wait)
        if handle.is_granted:
            _, panel = self._status(arguments)
        else:
            self._lease_sync.pending = handle
            panel = views.waiting_panel(handle.request, time.time())
        answer = {
            "request": handle.request,
            "lease": handle.lease,
            "advice": handle.advice,
        }
        return answer, _with_remark(panel, handle.advice)

    def _release(self, _: Namespace) -> Answer:
        from jupyter_aistack.client.lease_guard import own_lease, waiting_requests

        client = self._connect()
        mine = client.mine()
        # Before anything is given back: what is no longer wanted must not be attached.
        self._lease_sync.pending = None
        own = own_lease(mine)
        self._give_back(own, mine)
        cancelled = [client.cancel(request["id"]) for request in waiting_requests(mine)]
        if own is not None:
            return {"released": [own["id"]]}, _released_panel(own)
        if not cancelled:
            title = "This kernel holds no slice; there is nothing to release"
            return {"released": []}, Panel(title=title)
        released = [request["id"] for request in cancelled]
        title = f"Left the queue for {cancelled[0]['spec']}"
        return {"released": released}, Panel(title=title)

    def _give_back(self, own: JSON | None, mine: JSON) -> None:
        """Release what this process has attached, or what the kernel was launched
        with.
        """
        from jupyter_aistack.client.process_leases import attached
        from jupyter_aistack.client.runtime import attach
        from jupyter_aistack.core.wire.preparations import PREPARATION

        handle = attached()
        if handle is not None:
            handle.release()
        elif own is not None:
            self._connect().call("release", lease_id=own["id"])
            # Of a device that is closed nobody can say what was prepared.
            prepared = mine["prepared"].get(own["id"])
            if prepared is not None:
                attach.restore_environment(PREPARATION.from_dict(prepared))

    def _queue(self, _: Namespace) -> Answer:
        client = self._connect()
        waiting = client.queue()
        requests = client.mine()["requests"] if waiting else []
        own = {request["id"] for request in requests}
        return {"queue": waiting}, views.queue_panel(waiting, own, time.time())

    def _extend(self, arguments: Namespace) -> Answer:
        from jupyter_aistack.client.durations import lease_seconds

        seconds = lease_seconds(arguments.duration)
        own = self._own_lease("this kernel holds no slice to extend")
        lease = self._connect().call("extend", lease_id=own["id"], seconds=seconds)
        left = views.time_left(lease, time.time())
        is_kept = own["notice"] is not None and not lease["notice"]
        panel = Panel(
            title=f"{lease['spec']} ({lease['id']}): {left}",
            remark="It is kept: it counts as used now." if is_kept else "",
        )
        return {"lease": lease}, panel

    def _change_device_state(self, arguments: Namespace) -> Answer:
        own = self._own_lease("this kernel holds no slice")
        lease = self._connect().call(arguments.verb, lease_id=own["id"])
        return {"lease": lease}, views.device_state_panel(lease, arguments.verb)

    def _own_lease(self, refusal: str) -> JSON:
        from jupyter_aistack.client.lease_guard import own_lease

        own = own_lease(self._connect().mine())
        if own is None:
            raise LeaseError(f"{refusal}; %gpu request SPEC asks for one")
        return own

    def _usage(self, arguments: Namespace) -> Answer:
        return self._weeks() if arguments.week else self._usage_now()

    def _weeks(self) -> Answer:
        from jupyter_aistack.notebook.panels import accounting

        bill = self._connect().call(
            "bill",
            notebook=True,
            settle=True,
            since=time.time() - WEEK_SECONDS,
            label=self._requests.label(),
        )
        return bill, accounting.history_panel(bill)

    def _usage_now(self) -> Answer:
        from jupyter_aistack.notebook.panels import accounting
        from jupyter_aistack.tracking.cost import cost

        client = self._connect()
        leases = client.mine()["leases"]
        usage = client.usage()
        spent = cost(client)
        bill = client.call("bill", settle=True)
        own = {lease["id"]: usage["leases"].get(lease["id"]) for lease in leases}
        answer = {"leases": own, "cost": spent.as_dict(), "bill": bill}
        parts = accounting.bill_parts(bill)
        return answer, views.usage_panel(leases, usage, spent, parts)

    def _advise(self, _: Namespace) -> Answer:
        from jupyter_aistack.notebook.panels import accounting

        answer = self._connect().call("advise", label=self._requests.label())
        return answer, accounting.advice_panel(answer["advice"])


def _released_panel(lease: JSON) -> Panel:
    from jupyter_aistack.system.runtimes import started_runtime

    remark = ""
    started = started_runtime()
    if started:
        remark = f"{started} still holds memory in this kernel: restart it to free the device."
    return Panel(title=f"Released {lease['spec']}", remark=remark)


def _with_remark(panel: Panel, line: str | None) -> Panel:
    """The panel with another line to its remark."""
    if not line:
        return panel
    lines: list[Any] = [panel.remark, line]
    return replace(panel, remark="\n".join(filter(None, lines)))
