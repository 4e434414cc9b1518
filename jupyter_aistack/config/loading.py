"""Settings where no Jupyter server has read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from traitlets import TraitError
from traitlets.config.loader import LazyConfigValue

from jupyter_aistack.exceptions import InvalidRequest

from .files import SettingsFiles
from .settings import AIStack


def load_settings() -> AIStack:
    """Settings outside a server: what the ``jupyter_server_config`` and
    ``jupyter_aistack_config`` files say.

    Raises:
        InvalidRequest: a setting is of a kind that makes no sense; it is named.
    """
    application = SettingsFiles()
    application.load()
    try:
        return AIStack(parent=application)
    except TraitError as error:
        field = refused_trait(application.config.AIStack)
        raise InvalidRequest(f"{field}: {error}", field=field) from error


def refused_trait(configured: Mapping[str, Any]) -> str:
    """The setting whose value its trait does not take: traitlets' error does not name
    it but in its text.
    """
    for name in AIStack.class_trait_names(config=True):
        value = configured.get(name)
        # Changes of a default, such as ``c.AIStack.admins.append``, take its kind.
        if value is None or isinstance(value, LazyConfigValue):
            continue
        try:
            AIStack(**{name: value})
        except TraitError:
            return name
    return "settings"
