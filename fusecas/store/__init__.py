"""The immutable side: objects, layers, refs, gc. Knows nothing of mounts, trio or the terminal."""
