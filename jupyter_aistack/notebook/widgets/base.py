"""What our widgets share: a live view, and beside it a picture that stays in the
notebook file.
"""

from __future__ import annotations

import time
import uuid
from abc import abstractmethod
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import traitlets

_STATIC = Path(__file__).parent / "static"

PICTURE_SECONDS = 5.0
"""How often the picture in the notebook follows the live view, at most."""


def module(name: str) -> str:
    """The ES module of a widget, with what all of them share in front: the page cannot
    import a second file.
    """
    files = [_STATIC / "live.js", _STATIC / name]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


class LiveWidget(anywidget.AnyWidget):
    """A widget with a picture.

    Displaying it makes two outputs: the live view, and a picture which the live view
    hides. Where the view cannot live (kernel gone, nbconvert, a page on the web) the
    picture is what is seen.
    """

    _picture: Any = None  # on the class, for close() runs after a failed start too
    picture_id = traitlets.Unicode().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        self._pictured_at = 0.0
        super().__init__(picture_id=uuid.uuid4().hex, **traits)

    @abstractmethod
    def picture(self) -> str:
        """The present state as HTML without scripts."""

    def _ipython_display_(self) -> None:
        from IPython.display import display, publish_display_data

        view = _data(self._repr_mimebundle_())
        publish_display_data({"text/plain": repr(self), **view})
        self._picture = display(self._shown(), raw=True, display_id=True)

    def _shown(self) -> dict[str, str]:
        id_ = escape(self.picture_id)
        html = f'<div data-aistack-picture="{id_}">{self.picture()}</div>'
        return {"text/html": html, "text/plain": self.summary()}

    @abstractmethod
    def summary(self) -> str:
        """The present state in a line of text."""

    def _follow(self, *, now: bool = False) -> None:
        """Bring the picture up to date, unless it was just now."""
        if self._picture is None:
            return
        is_due = time.monotonic() - self._pictured_at >= PICTURE_SECONDS
        if now or is_due:
            self._pictured_at = time.monotonic()
            self._picture.update(self._shown(), raw=True)

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.summary()}"

    def close(self) -> None:
        """End the live view; its last state stays as a picture. Closing twice is
        allowed.
        """
        self._follow(now=True)
        super().close()


def _data(bundle: Any) -> dict[str, Any]:
    """The data of a mimebundle, which may come with its metadata."""
    if isinstance(bundle, tuple):
        bundle = bundle[0]
    return dict(bundle or {})
