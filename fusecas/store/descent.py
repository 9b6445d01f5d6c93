"""Directories below one descriptor, opened step by step and never through a link."""

import os
from collections.abc import Callable
from typing import NamedTuple

from fusecas.errors import ChangedWhileRead

OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
MOST_OPEN = 64

Belongs = Callable[[int, int], bool]
"""Whether a device and inode are of our own repository, which import and export leave alone."""


class Step(NamedTuple):
    """A directory on the way: its descriptor (-1 while it is closed), and what it is."""

    descriptor: int
    device: int
    inode: int


class Descent:
    """Goes from directory to directory; what is near the last one is found without starting from the root again.

    A tree may be deeper than the number of files that a process may have open: those far above are closed, and found
    again by `..`, if they are still the same.
    """

    def __init__(self, root: int) -> None:
        self._path = b""
        self._steps = [self._step(os.dup(root))]

    def close(self) -> None:
        for step in self._steps:
            if step.descriptor >= 0:
                os.close(step.descriptor)
        self._steps = []

    def to(self, path: bytes) -> int:
        """The descriptor of a directory; it belongs to us, and is valid until the next call."""
        while self._path and self._path != path and not path.startswith(self._path + b"/"):
            self._up()
        rest = path[len(self._path) :].strip(b"/")
        for name in rest.split(b"/") if rest else ():
            self._down(name)
        return self._steps[-1].descriptor

    @staticmethod
    def _step(descriptor: int) -> Step:
        here = os.fstat(descriptor)
        return Step(descriptor, here.st_dev, here.st_ino)

    def _down(self, name: bytes) -> None:
        self._steps.append(self._step(os.open(name, OPEN_DIRECTORY, dir_fd=self._steps[-1].descriptor)))
        self._path = self._path + b"/" + name if self._path else name
        far = len(self._steps) - MOST_OPEN
        if far > 0 and self._steps[far].descriptor >= 0:  # never the root
            os.close(self._steps[far].descriptor)
            self._steps[far] = self._steps[far]._replace(descriptor=-1)

    def _up(self) -> None:
        step, above = self._steps[-1], self._steps[-2]
        if above.descriptor < 0:
            found = self._step(os.open("..", OPEN_DIRECTORY, dir_fd=step.descriptor))
            if found[1:] != above[1:]:
                os.close(found.descriptor)
                raise ChangedWhileRead(f"{os.fsdecode(self._path)} was moved meanwhile")
            self._steps[-2] = found
        os.close(step.descriptor)
        self._steps.pop()
        self._path = self._path.rpartition(b"/")[0]


def is_within(descriptor: int, belongs: Belongs) -> bool:
    """Whether a directory, or one above it, belongs there."""
    place = os.dup(descriptor)
    try:
        while True:
            here = os.fstat(place)
            if belongs(here.st_dev, here.st_ino):
                return True
            try:
                above = os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=place)
            except PermissionError:
                return False  # above is nothing that this user could have a store in
            os.close(place)
            place = above
            if os.path.samestat(os.fstat(place), here):
                return False
    finally:
        os.close(place)
