"""Names of modules that are looked up in ``sys.modules``, never imported for it.

Whether such a module is loaded says whether this kernel uses what it holds; to import it
for the question would load it. A name that is wrong turns the feature off in silence,
so the names stand here alone, where a test imports each.
"""

from __future__ import annotations

PROCESS_LEASES = "jupyter_aistack.client.process_leases"
"""Loaded once this process may have attached a lease."""

OFFLOAD_REGISTRY = "jupyter_aistack.client.offload.registry"
"""Loaded once something may be registered to be moved to host memory."""

CLUSTER = "jupyter_aistack.compute.clusters.cluster"
"""Loaded once this kernel may have workers with leases of their own."""
