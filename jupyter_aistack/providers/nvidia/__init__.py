"""NVIDIA GPUs: whole, MIG instances and MPS shares."""
