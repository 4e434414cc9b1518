"""The files that settings are read from."""

from __future__ import annotations

from collections.abc import Collection

from traitlets.config import Application

from jupyter_aistack.system.permissions import guarded


class SettingsFiles(Application):
    """Reads the same config files as a Jupyter server, and nothing else of it."""

    name = "jupyter-aistack"

    def load(self, guarded_by: Collection[int] | None = None) -> None:
        """Read the files.

        Args:
            guarded_by: only those that nobody but these users may change.
        """
        from jupyter_core.paths import jupyter_config_path

        folders = list(reversed(jupyter_config_path()))
        for base in ("jupyter_server_config", "jupyter_aistack_config"):
            own = guarded(folders, (f"{base}.py", f"{base}.json"), guarded_by)
            self.load_config_file(base, path=own)
