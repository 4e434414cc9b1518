"""Settings, and the one place that builds a broker from them."""

from .loading import load_settings
from .settings import AIStack

__all__ = ["AIStack", "load_settings"]
