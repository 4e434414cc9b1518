"""Settings, and the one place that builds a broker from them."""

from .host_broker import build_kernel_broker, find_host_broker
from .loading import load_settings
from .settings import AIStack

__all__ = ["AIStack", "build_kernel_broker", "find_host_broker", "load_settings"]
