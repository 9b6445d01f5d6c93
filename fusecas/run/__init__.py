"""Runs: what a command's key is, what is served instead of doing it again, and what it leaves (docs/dev/runs.md)."""
