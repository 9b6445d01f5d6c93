"""A look at a whole folder, without its contents: whether it is as it was, and what of it would not be kept."""

import errno
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from blake3 import blake3

from fusecas import _native
from fusecas.store import trees
from fusecas.store.adopted import SUFFIX
from fusecas.store.descent import OPEN_DIRECTORY, Descent
from fusecas.store.exporter import OUR_XATTRS
from fusecas.store.importer import NAMES_AT_ONCE, RESERVED, Listed, problem
from fusecas.store.kinds import EntryKind

OF_THE_SYSTEM = {b"security.selinux"}
"""Set on each file by the system itself, again where it is copied to."""
DATABASE = b"store/data.mdb"


class Look(NamedTuple):
    """`seen` is the same of two looks only if nothing was changed in between: its digest of all inodes has their
    ctimes. That of the folder itself is left out: it moves."""

    seen: str
    unkept: list[tuple[bytes, str]]
    repositories: list[bytes]
    shared: int
    """How many files have names outside of it as well."""


def look_at(folder: Path, *, closely: bool = False) -> Look:
    """`closely`: also at what would not be kept. Its own `.fusecas` is not looked at."""
    return _Looking(closely).look(folder)


class _Looking:
    def __init__(self, closely: bool) -> None:
        self._closely = closely
        self._trusted = os.geteuid() == 0
        self._digest = blake3()
        self._unkept: list[tuple[bytes, str]] = []
        self._repositories: list[bytes] = []
        self._names: Counter[int] = Counter()
        self._links: dict[int, int] = {}

    def look(self, folder: Path) -> Look:
        root = os.open(folder, OPEN_DIRECTORY)
        places = Descent(root)
        try:
            own = os.fstat(root)
            self._digest.update(repr((own.st_ino, own.st_mode, own.st_uid, own.st_gid)).encode())
            self._look_for_unkept(b"", root, b".")
            waiting = [b""]
            while waiting:
                waiting += self._look_in(places, waiting.pop())
        finally:
            places.close()
            os.close(root)
        shared = sum(self._links[inode] > count for inode, count in self._names.items())
        return Look(self._digest.hexdigest(), self._unkept, self._repositories, shared)

    def _look_in(self, places: Descent, path: bytes) -> list[bytes]:
        """The directories in it."""
        try:
            descriptor = places.to(path)
            return [each for listed in self._listed(descriptor, path) for each in self._take(descriptor, path, listed)]
        except OSError as error:
            if error.errno == errno.ENOENT:
                return []  # gone meanwhile: the next look will differ from this one
            raise problem(path, error.errno) from error

    def _listed(self, descriptor: int, path: bytes) -> Iterator[Listed]:
        names = [each for each in _native.list_names(descriptor) if path or each != RESERVED]
        self._digest.update(repr((path, len(names))).encode())
        for start in range(0, len(names), NAMES_AT_ONCE):
            found, failed = _native.look_at(descriptor, names[start : start + NAMES_AT_ONCE], self._trusted)
            self._digest.update(repr(failed).encode())
            yield from map(Listed._make, found)

    def _take(self, descriptor: int, above: bytes, listed: Listed) -> Iterator[bytes]:
        path = trees.join(above, listed.name)
        self._digest.update(repr(listed._replace(device=0)).encode())
        if self._closely:
            self._look_for_unkept(path, descriptor, listed.name)
        if listed.kind == EntryKind.DIRECTORY:
            if listed.name.endswith(SUFFIX.encode()) and self._is_repository(descriptor, listed.name):
                self._repositories.append(path)
            yield path
        elif listed.nlink > 1:
            self._names[listed.inode] += 1
            self._links[listed.inode] = listed.nlink

    @staticmethod
    def _is_repository(descriptor: int, name: bytes) -> bool:
        try:
            os.stat(name + b"/" + DATABASE, dir_fd=descriptor)
        except OSError:
            return False
        return True

    def _look_for_unkept(self, path: bytes, descriptor: int, name: bytes) -> None:
        through = b"/proc/self/fd/%d/%s" % (descriptor, name)
        try:
            names = [os.fsencode(each) for each in os.listxattr(through, follow_symlinks=False)]
        except OSError as error:
            if error.errno in (errno.EOPNOTSUPP, errno.ENOENT):
                return
            raise
        for each in names:
            if not each.startswith(OUR_XATTRS) and each not in OF_THE_SYSTEM:
                self._unkept.append((path, "xattr " + trees.shown(each)))
