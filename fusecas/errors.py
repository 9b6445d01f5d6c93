"""The exceptions of fusecas: one type per kind of failure, each with its exit code.

A message names the thing that is wrong; a hint names the next step. The command line prints both, `--json` carries
`code`, the name of the class in kebab case, which scripts may rely on.
"""

import errno
import os
import re
from typing import ClassVar, Self


class FusecasError(Exception):
    """Anything that fusecas refuses or cannot do. Never raised itself: its subclasses are."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None, details: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details or {}

    @property
    def code(self) -> str:
        return re.sub(r"(?<!^)(?=[A-Z])", "-", type(self).__name__).lower()


class UsageError(FusecasError):
    """The call itself is wrong: an option, an argument, a name that no rule allows."""

    exit_code = 2


class BadName(UsageError):
    """A name that the rules for names refuse."""


class BadConfiguration(UsageError):
    """A configuration file says what can't be."""


class NotFound(FusecasError):
    exit_code = 3


class RefNotFound(NotFound):
    pass


class ObjectNotFound(NotFound):
    """No object has this id or prefix."""


class PathNotFound(NotFound):
    pass


class RepositoryNotFound(NotFound):
    pass


class ExpiredError(NotFound):
    """It was there, and gc has taken it since: past the grace time."""


class Refused(FusecasError):
    """Possible, but not now or not like this: nothing was changed."""

    exit_code = 4


class AlreadyExists(Refused):
    pass


class Conflict(Refused):
    """A compare-and-swap lost: what it expected is no longer there."""


class InUse(Refused):
    pass


class StillRunning(InUse):
    """A command is running in the workspace."""


class AmbiguousPrefix(Refused):
    """A prefix that several ids share; `candidates` lists them (at most 20)."""

    @classmethod
    def among(cls, prefix: str, candidates: list[str]) -> Self:
        listed = ", ".join(each[:12] for each in candidates[:8]) + (" …" if len(candidates) > 8 else "")
        details: dict[str, object] = {"candidates": candidates}
        return cls(f"{prefix} is ambiguous: {listed}", hint="give more digits", details=details)

    @property
    def candidates(self) -> list[str]:
        found = self.details["candidates"]
        assert isinstance(found, list)
        return found


class SessionLost(Refused):
    """A writer's session was taken for dead by gc: what it wrote may be gone, so it must run again."""


class TooLarge(Refused):
    """Over a limit that the format or a transaction sets."""


class ChangedWhileRead(Refused):
    """A file of the source kept changing while it was read."""


class Damaged(FusecasError):
    """Stored bytes that are not what they must be."""

    exit_code = 5


class CorruptObject(Damaged):
    """The bytes of an object do not give its id."""


class InvalidObject(Damaged):
    """The bytes give the id, but they are not a well-formed object of the kind that is needed."""


class MissingObject(Damaged):
    """An object that another one refers to is not there."""


class UnknownFormat(Damaged):
    """Written by a newer fusecas, or not by fusecas."""


class DamagedEnvironment(Damaged):
    """LMDB's own pages are damaged, or the file was cut short."""


class EnvironmentProblem(FusecasError):
    """The machine does not give what is needed."""

    exit_code = 6


class DiskFull(EnvironmentProblem):
    pass


class PermissionProblem(EnvironmentProblem):
    pass


class NoAddressSpace(EnvironmentProblem):
    """Not even the smallest map of the store fits in the address space."""


class TooManyReaders(EnvironmentProblem):
    pass


class SharedPid(EnvironmentProblem):
    """Two processes with one pid, in two containers, have the store open: LMDB can't tell them apart."""


class StorageProblem(EnvironmentProblem):
    """A read or a write of the disk below failed."""


class InternalError(FusecasError):
    """A bug of ours."""

    exit_code = 70


def of_system(error: OSError) -> FusecasError:
    """A file or a device that the system refused, as one of our errors."""
    message = error.strerror or str(error)
    if error.filename is not None:
        message = f"{os.fsdecode(error.filename)}: {message}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP):
        return PathNotFound(message)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return PermissionProblem(message)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(message)
    return EnvironmentProblem(message)
