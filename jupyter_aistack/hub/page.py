"""The page of the hub as HTML: it works without JavaScript, and takes nothing from
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from jupyter_aistack.core.model.roles import Role

from .host_view import DeviceRow, HeldRow, HostView, Rights, WaitingRow, WeekRow

DRAIN_HOURS = (1, 4, 8, 24, 72)
"""For how long the page offers to drain a device."""

DONE = {
    "release": "The lease has been released.",
    "cancel": "The request has been cancelled.",
    "drain": "The device is drained: nothing new is granted on it.",
    "undrain": "The device grants leases again.",
}
"""What is said of an action that was done, by its name."""

STYLE = """
:root { color-scheme: light dark; --line: #bdbdbd; --soft: #5f5f5f; --back: #fff; --text: #212121;
  --accent: #0b61a4; --bad: #b3261e; --head: #f5f5f5; }
@media (prefers-color-scheme: dark) { :root { --line: #616161; --soft: #bdbdbd; --back: #111; --text: #eee;
  --accent: #8ab4f8; --bad: #f2b8b5; --head: #212121; } }
* { box-sizing: border-box; }
body { background: var(--back); color: var(--text); font: 14px/1.45 system-ui, sans-serif; margin: 0; }
header, main, footer { margin: 0 auto; max-width: 75rem; padding: .75rem 1rem; }
header { align-items: baseline; border-bottom: 1px solid var(--line); display: flex;
  flex-wrap: wrap; gap: .25rem 1rem; }
h1 { font-size: 1.25rem; margin: 0; }
h2 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
nav { margin-left: auto; }
a { color: var(--accent); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; width: 100%; }
th, td { border-bottom: 1px solid var(--line); padding: .35rem .6rem; text-align: left; vertical-align: top; }
thead th { background: var(--head); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 600; }
td.number { text-align: right; white-space: nowrap; }
.badge { border: 1px dashed var(--line); border-radius: 8px; font-size: .8rem; padding: 0 .4rem; }
.soft, .empty { color: var(--soft); }
.problem { border-left: 3px solid var(--bad); margin: .75rem 0; padding: .25rem .75rem; }
.done { border-left: 3px solid var(--accent); margin: .75rem 0; padding: .25rem .75rem; }
summary { color: var(--accent); cursor: pointer; white-space: nowrap; }
form { display: flex; flex-wrap: wrap; gap: .4rem; margin: .4rem 0 .2rem; align-items: end; }
label { display: flex; flex-direction: column; font-size: .8rem; }
button, select, input { background: var(--back); border: 1px solid var(--line); border-radius: 3px; color: inherit;
  font: inherit; min-height: 24px; padding: .2rem .6rem; }
button { border-color: var(--accent); cursor: pointer; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
"""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What is around what is shown.

    Attributes:
        prefix: the path of the service, with a slash at its end.
        hub: the path of the hub's own pages, with a slash at its end.
        xsrf: the hidden field by which a form is known to come from this page.
        done: the action that was just done; empty for none.
        problem: why an action was not done; empty for none.
    """

    prefix: str
    hub: str
    xsrf: str
    done: str = ""
    problem: str = ""


def host_page(view: HostView, frame: Frame) -> str:
    """The page of a host."""
    parts = [
        *_notices(view, frame),
        _section("Devices", _devices(view.devices, frame)),
        _section("Held now", _held(view.held, frame)),
        _section("Waiting", _waiting(view.waiting, frame)),
        _section(f"Used in {view.week_name}", _week(view.week)),
    ]
    badge = ' <span class="badge">simulated</span>' if view.is_simulated else ""
    heading = f"GPUs of {escape(view.host)}{badge}"
    return _document(
        f"GPUs of {view.host}", heading, _whoami(view.rights), parts, frame
    )


def error_page(sentence: str, frame: Frame) -> str:
    """A page that says why there is nothing to show."""
    parts = [f'<p class="problem" role="alert">{escape(sentence)}</p>']
    return _document("GPUs of this hub", "GPUs of this hub", "", parts, frame)


def _document(
    title: str, heading: str, whoami: str, parts: Iterable[str], frame: Frame
) -> str:
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{escape(frame.prefix)}style.css">
</head>
<body>
<header>
<h1>{heading}</h1>
<span class="soft">{whoami}</span>
<nav aria-label="Hub"><a href="{escape(frame.prefix)}">Refresh</a> · <a href="{escape(frame.hub)}home">Hub</a></nav>
</header>
<main>
{"".join(parts)}
</main>
</body>
</html>
"""


def _whoami(rights: Rights) -> str:
    roles = [role.value for role in rights.roles if role is not Role.USER]
    what = ", ".join(roles) or "read only"
    queues = ", ".join(sorted(rights.queues))
    of = f" of {queues}" if queues and Role.MANAGER in rights.roles else ""
    return escape(f"{rights.user}: {what}{of}")


def _notices(view: HostView, frame: Frame) -> Iterable[str]:
    if frame.problem:
        yield f'<p class="problem" role="alert">{escape(frame.problem)}</p>'
    if frame.done in DONE:
        yield f'<p class="done" role="status">{escape(DONE[frame.done])}</p>'
    for problem in view.problems:
        yield f'<p class="problem">{escape(problem)}</p>'


def _section(title: str, body: str) -> str:
    name = title.split()[0].lower()
    return (
        f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>'
        f'<div class="wide">{body}</div></section>\n'
    )


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], otherwise: str
) -> str:
    """A table of cells that are HTML already; `otherwise` is said where it is empty."""
    if not rows:
        return f'<p class="empty">{escape(otherwise)}</p>'
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    body = "".join(f"<tr>{''.join(row)}</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"


def _head(text: str) -> str:
    return f'<th scope="row">{escape(text)}</th>'


def _cell(text: str) -> str:
    return f"<td>{escape(text)}</td>"


def _number(text: str) -> str:
    return f'<td class="number">{escape(text)}</td>'


# -- tables ----------------------------------------------------------------------------


def _devices(rows: Iterable[DeviceRow], frame: Frame) -> str:
    headings = ("Device", "Memory", "Free", "In use", "Remark", "Change")
    cells = [
        (
            _head(row.name),
            _number(row.memory),
            _number(row.free),
            _cell(row.use),
            _cell(row.remark),
            f"<td>{_drain_form(row, frame)}</td>",
        )
        for row in rows
    ]
    return _table(headings, cells, "The broker of this host sees no device.")


def _held(rows: Iterable[HeldRow], frame: Frame) -> str:
    headings = ("Who", "Notebook", "Slice", "Where", "Queue", "Held for", "", "Change")
    cells = [
        (
            _head(row.user),
            _cell(row.notebook),
            _cell(row.size),
            _cell(row.where),
            _cell(row.queue),
            _number(row.held_for),
            _cell(row.remark),
            f"<td>{_release_form(row, frame)}</td>",
        )
        for row in rows
    ]
    return _table(headings, cells, "Nobody holds a slice.")


def _waiting(rows: Iterable[WaitingRow], frame: Frame) -> str:
    headings = (
        "Place",
        "Who",
        "Notebook",
        "Wants",
        "Queue",
        "Waits for",
        "Why",
        "Change",
    )
    cells = [
        (
            _head(row.place),
            _cell(row.user),
            _cell(row.notebook),
            _cell(row.size),
            _cell(row.queue),
            _number(row.waits_for),
            _cell(row.why),
            f"<td>{_cancel_form(row, frame)}</td>",
        )
        for row in rows
    ]
    return _table(headings, cells, "Nobody waits.")


def _week(rows: Iterable[WeekRow]) -> str:
    headings = ("Who", "GPU-hours", "of them at work", "CPU-hours")
    cells = [
        (
            _head(row.user),
            _number(row.gpu_hours),
            _number(row.used_hours),
            _number(row.cpu_hours),
        )
        for row in rows
    ]
    return _table(headings, cells, "Nothing has been used in this week.")


# -- forms -----------------------------------------------------------------------------


def _release_form(row: HeldRow, frame: Frame) -> str:
    if not row.may_release:
        return ""
    what = f"{row.user}'s {row.size}"
    fields = _hidden("lease_id", row.id)
    return _asking(
        "Release", what, _form("release", fields, "Release now", what, frame)
    )


def _cancel_form(row: WaitingRow, frame: Frame) -> str:
    if not row.may_cancel:
        return ""
    what = f"{row.user}'s request for {row.size}"
    fields = _hidden("request_id", row.id)
    return _asking("Cancel", what, _form("cancel", fields, "Cancel now", what, frame))


def _drain_form(row: DeviceRow, frame: Frame) -> str:
    if not row.may_drain:
        return ""
    fields = _hidden("device", row.id)
    if row.is_drained:
        return _form("undrain", fields, "Undrain", row.name, frame)
    fields += _drain_fields()
    return _asking("Drain", row.name, _form("drain", fields, "Drain", row.name, frame))


def _drain_fields() -> str:
    hours = "".join(
        f'<option value="{hours}">{hours} h</option>' for hours in DRAIN_HOURS
    )
    return (
        f'<label>For<select name="hours">{hours}<option value="">until undrained</option>'
        '</select></label><label>Reason<input name="reason" maxlength="200"></label>'
    )


def _asking(label: str, what: str, form: str) -> str:
    """A form that is opened first, so that nothing is taken away by one slip."""
    spoken = escape(f"{label} {what}")
    return f'<details><summary aria-label="{spoken}">{label}…</summary>{form}</details>'


def _form(action: str, fields: str, label: str, what: str, frame: Frame) -> str:
    spoken = escape(f"{label}: {what}")
    return (
        f'<form method="post" action="{escape(frame.prefix)}{action}">{frame.xsrf}{fields}'
        f'<button aria-label="{spoken}">{escape(label)}</button></form>'
    )


def _hidden(name: str, value: str) -> str:
    return f'<input type="hidden" name="{name}" value="{escape(value)}">'
