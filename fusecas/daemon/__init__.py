"""The process that serves a repository: its mount, and the control socket."""
