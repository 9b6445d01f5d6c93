"""Folders that are taken over and given back (docs/dev/adopt.md)."""
