"""The audit trail: what is told of a change, and how each event seals the one before."""
