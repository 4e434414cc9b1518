"""Turns snapshots into plans and plans into facts, and its API in JSON."""
