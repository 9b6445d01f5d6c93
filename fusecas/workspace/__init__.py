"""The mutable side: a workspace's overlay over its stored state, and what moves between the two."""
