"""Settings, and the one place that builds a broker from them."""

from .stack import AIStack, load_settings

__all__ = ["AIStack", "load_settings"]
