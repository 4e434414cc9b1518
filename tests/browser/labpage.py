"""JupyterLab in the browser, as a person sees and uses it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat

from .labserver import LabServer

if TYPE_CHECKING:
    from playwright.sync_api import (
        ConsoleMessage,
        Locator,
        Page,
        Request,
        WebSocketRoute,
    )

PICTURES = Path(__file__).parent.parent / "artifacts"
API = "**/aistack/api/v1/**"
STREAM = "**/aistack/api/v1/stream*"

_FIND = "const app = window.jupyterapp; const panel = app.shell.currentWidget;"
_OPEN = """async path => {
  const panel = await window.jupyterapp.commands.execute('docmanager:open', { path });
  await panel.context.ready;
  await panel.sessionContext.ready;
  await panel.sessionContext.session.kernel.info;
  await panel.revealed;
  await new Promise(done => requestIdleCallback(done));
}"""
_SHOW = """async path => {
  const kernel = { shouldStart: false, autoStartDefault: false };
  const panel = await window.jupyterapp.commands.execute('docmanager:open', { path, kernelPreference: kernel });
  await panel.context.ready;
}"""
_RUN = f"""async source => {{ {_FIND}
  panel.content.activeCell.model.sharedModel.setSource(source);
  const cell = panel.content.activeCell;
  await app.commands.execute('notebook:run-cell-and-select-next');
  return cell.model.outputs.toJSON();
}}"""


class LabPage:
    """One page of JupyterLab and what it has said and asked meanwhile."""

    def __init__(self, page: Page, server: LabServer) -> None:
        self.page = page
        self.server = server
        self.complaints: list[str] = []
        self.strangers: list[str] = []
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", self._note)

    @property
    def panel(self) -> Locator:
        """Our side panel."""
        return self.page.locator("#jupyter-aistack-panel")

    @property
    def mine(self) -> Locator:
        """What the panel says of the notebook in front."""
        return self.panel.get_by_role("region", name="My slice")

    @property
    def status_item(self) -> Locator:
        """Our item in the status bar."""
        return self.page.locator(".jp-AIStack-statusItem")

    @property
    def toasts(self) -> Locator:
        """The notifications that pop up."""
        return self.page.locator(".jp-toastContainer .Toastify__toast")

    @property
    def dialog(self) -> Locator:
        """The request dialog."""
        return self.page.locator(".jp-AIStack-dialog .jp-Dialog-content")

    def load(self, *, reset: bool = True) -> LabPage:
        """Go to JupyterLab and wait until it is all there; `reset` forgets the layout
        of last time.
        """
        self.page.goto(
            f"{self.server.url}/lab?token={self.server.token}{'&reset' if reset else ''}"
        )
        self.page.wait_for_function("window.jupyterapp && window.jupyterapp.started")
        self.page.evaluate("window.jupyterapp.restored")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")
        return self

    def command(self, name: str, **args: Any) -> None:
        """Run a command and wait until it is done."""
        self.page.evaluate(
            "([name, args]) => window.jupyterapp.commands.execute(name, args).then(() => null)",
            [name, args],
        )

    def open_panel(self) -> Locator:
        """Bring our panel to the front."""
        self.command("jupyter-aistack:open")
        self.panel.wait_for(state="visible")
        return self.panel

    def resize_panel(self, width: int) -> None:
        """Drag the edge of the side panel until it is `width` pixels wide."""
        edge = self.page.locator(
            "#jp-main-split-panel > .lm-SplitPanel-handle"
        ).first.bounding_box()
        panel = self.panel.bounding_box()
        assert edge is not None
        assert panel is not None
        self.page.mouse.move(edge["x"] + 1, edge["y"] + 300)
        self.page.mouse.down()
        self.page.mouse.move(
            edge["x"] + 1 + width - panel["width"], edge["y"] + 300, steps=5
        )
        self.page.mouse.up()

    def open_notebook(self, name: str, *, kernel: str = "aistack") -> None:
        """Open a notebook of that name, new if there is none, and wait for its
        kernel.
        """
        path = self.server.root / name
        if not path.exists():
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell()])
            notebook.metadata["kernelspec"] = {
                "name": kernel,
                "display_name": kernel,
                "language": "python",
            }
            nbformat.write(notebook, path)
        self.page.evaluate(_OPEN, name)
        # It takes the keyboard a little later; who types before that types elsewhere.
        self.page.wait_for_function(
            "document.activeElement.closest('.jp-Notebook') !== null"
        )

    def show_file(self, name: str) -> None:
        """Open a notebook without starting a kernel for it."""
        self.page.evaluate(_SHOW, name)
        self.page.locator(".jp-Notebook .jp-OutputArea-output").first.wait_for()

    def show_notebook(self, name: str) -> None:
        """Bring an open notebook to the front by its tab."""
        self.page.locator(
            ".lm-DockPanel-tabBar .lm-TabBar-tabLabel", has_text=name
        ).click()

    def run(self, source: str) -> str:
        """Run `source` in the next cell of the notebook in front; what it printed.
        Fails where it fails.
        """
        outputs: list[dict[str, Any]] = self.page.evaluate(_RUN, source)
        errors = [
            f"{output['ename']}: {output['evalue']}"
            for output in outputs
            if output["output_type"] == "error"
        ]
        assert not errors, f"{source}\n{errors}"
        return "".join(
            _joined(output.get("text") or output.get("data", {}).get("text/plain", ""))
            for output in outputs
        )

    def kernel_id(self) -> str:
        """That of the notebook in front."""
        kernel_id: str = self.page.evaluate(
            "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.id"
        )
        return kernel_id

    def attach(self, lease_id: str) -> None:
        """Run a cell: it must have the lease that came from outside."""
        assert lease_id in self.run("import os; print(os.environ.get('AISTACK_LEASE'))")

    def fact(self, name: str) -> Locator:
        """What the card of the slice says under `name`."""
        return self.mine.locator(f"dt:text-is('{name}') + dd")

    def device(self, index: int) -> Locator:
        """One device in the panel."""
        return self.panel.locator(".jp-AIStack-device").nth(index)

    def focused(self) -> str:
        """Tag and name of what has the keyboard."""
        name: str = self.page.evaluate(
            "() => { const e = document.activeElement;"
            " return e.tagName + ' ' + (e.getAttribute('aria-label') || e.textContent || e.name || '').trim(); }"
        )
        return name

    def picture(self, name: str) -> Path:
        """Keep what is to be seen now, for people to look at."""
        PICTURES.mkdir(exist_ok=True)
        path = PICTURES / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(
                f"{message.text} ({message.location.get('url', '')})"
            )

    def _note(self, request: Request) -> None:
        if not request.url.startswith((self.server.url, "data:", "blob:")):
            self.strangers.append(request.url)


class Line:
    """The line between page and server, which a test may cut; only that of our
    extension.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.sockets: list[WebSocketRoute] = []
        self.has_socket = True
        self._cut_rest = False
        page.route_web_socket(STREAM, self._connect)
        page.route(
            API, lambda route: route.abort() if self._cut_rest else route.continue_()
        )

    def cut_socket(self) -> None:
        """The live connection ends and cannot be made again."""
        self.has_socket = False
        for socket in self.sockets:
            socket.close(code=1001)
        self.sockets.clear()

    def cut(self) -> None:
        """The server does not answer in any way."""
        self._cut_rest = True
        self.cut_socket()

    def restore(self) -> None:
        """Everything works again."""
        self._cut_rest = False
        self.has_socket = True

    def _connect(self, socket: WebSocketRoute) -> None:
        if self.has_socket:
            socket.connect_to_server()
            self.sockets.append(socket)
        else:
            socket.close(code=1001)


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
