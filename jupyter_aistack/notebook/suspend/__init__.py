"""The kernel's side of suspension: the agent, and the hooks that wait for a resume."""
