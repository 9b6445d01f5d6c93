"""What a machine and a repository must give for a mount, each looked at on its own, and how to mend what is missing.

Looks, and tries where looking can't tell; changes nothing that stays.
"""

import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from fusecas.client import Client, NoDaemon
from fusecas.errors import FusecasError
from fusecas.mount.device import DEVICE, ask_kernel, is_mounted, is_stale, mount_lines
from fusecas.mount.mountpoint import recorded
from fusecas.store.adopted import Note, Places, Step, is_pointer_folder
from fusecas.store.repository import SERVER

OK, WARNING, PROBLEM = "ok", "warning", "problem"
CONFIGURATION = Path("/etc/fuse.conf")
WATCHMAN = Path("/etc/watchman.json")
INOTIFY = Path("/proc/sys/fs/inotify")
STATUS = Path("/proc/self/status")
OLDEST_PROTOCOL = (7, 30)
CAP_SYS_ADMIN = 21
NETWORK = {"nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "afs", "gpfs", "vboxsf", "fuse.sshfs"}
VOLATILE = {"tmpfs", "ramfs", "devtmpfs"}
FEW_WATCHES, FEW_INSTANCES = 65_536, 128
PROJECT_FILES = (
    *(".git", "package.json", "node_modules", "tsconfig.json", "pnpm-workspace.yaml", "pyproject.toml", "pytest.ini"),
    *("tox.ini", "setup.cfg", "Cargo.toml", ".cargo/config.toml", "go.mod", "go.work", "settings.gradle"),
    *("MODULE.bazel", ".editorconfig"),
)
"""What tools look for in the folder where they are, and in all above it."""
MIB, GIB = 1 << 20, 1 << 30
PATIENCE = 3.0


class Check(NamedTuple):
    name: str
    outcome: str
    said: str
    mend: str | None = None


def examine(repository: Path | None) -> Iterator[Check]:
    """Every check, one after the other; those of a repository if there is one."""
    machine = [device(), permission(), binding()]
    yield from machine
    if all(check.outcome != PROBLEM for check in machine):
        yield protocol()
    yield from (others(), watches(), watchman())
    if repository is not None:
        looks: tuple[Callable[[Path], Check], ...] = (access, file_system, space, surroundings, daemon)
        for look in looks:
            yield look(repository)
        if (note := Note.read(repository)) is not None:
            yield adopted(repository, note)


# ---- the machine


def device() -> Check:
    name = "device"
    try:
        found = os.stat(DEVICE)
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Check(
            name, PROBLEM, f"{DEVICE} is not there", "as root: modprobe fuse; in a container: --device /dev/fuse"
        )
    except PermissionError as error:
        if error.errno == errno.EPERM:
            return Check(name, PROBLEM, f"{DEVICE} is forbidden here", "in a container: --device /dev/fuse")
        mode = f"mode {stat.S_IMODE(found.st_mode):04o}, user {found.st_uid}, group {found.st_gid}"
        return Check(name, PROBLEM, f"{DEVICE} can't be opened ({mode})", "as root: chmod 666 /dev/fuse")
    except OSError as error:
        return Check(name, PROBLEM, f"{DEVICE}: {error.strerror}", "as root: modprobe fuse")
    if not found.st_mode & stat.S_IWOTH and os.geteuid() == 0:
        return Check(name, OK, f"{DEVICE} can be opened, by root alone (others: chmod 666 {DEVICE})")
    return Check(name, OK, f"{DEVICE} can be opened")


def permission() -> Check:
    """Who mounts: root by itself, others through fusermount3, which must be able to become root."""
    name = "mounting"
    status = dict(line.split(":\t", 1) for line in STATUS.read_text().splitlines() if ":\t" in line)
    if os.geteuid() == 0:
        if int(status["CapEff"], 16) >> CAP_SYS_ADMIN & 1:
            return Check(name, OK, "root may mount")
        return Check(name, PROBLEM, "root may not mount here", "in a container: --cap-add SYS_ADMIN")
    helper = shutil.which("fusermount3")
    if helper is None:
        return Check(name, PROBLEM, "fusermount3 is not there", "install the package fuse3")
    found = os.stat(helper)
    if found.st_uid != 0 or not found.st_mode & stat.S_ISUID:
        return Check(
            name, PROBLEM, f"{helper} is not set-uid root", f"as root: chown root {helper}; chmod 4755 {helper}"
        )
    if os.statvfs(helper).f_flag & os.ST_NOSUID:
        return Check(name, PROBLEM, f"{helper} is on a file system mounted nosuid", "mount that without nosuid")
    if status.get("NoNewPrivs", "0").strip() != "0":
        return Check(
            name, PROBLEM, "set-uid programs don't work here (no_new_privs)", "start this outside of the sandbox"
        )
    return Check(name, OK, f"{helper} is there, set-uid root")


def binding() -> Check:
    name = "pyfuse3"
    try:
        from fusecas.mount.binding import VERSION
    except ImportError as error:
        return Check(name, PROBLEM, f"pyfuse3 can't be loaded: {error}", "install libfuse3 (Debian: libfuse3-3)")
    return Check(name, OK, f"pyfuse3 {VERSION} can be loaded")


def protocol() -> Check:
    """What the kernel says of itself when something is really mounted, for a moment."""
    name = "kernel"
    place = Path(tempfile.mkdtemp(prefix="fusecas-doctor-"))
    try:
        version = ask_kernel(place)
    except FusecasError as error:
        return Check(name, PROBLEM, f"a mount was tried and refused: {error.message}", error.hint)
    finally:
        place.rmdir()
    said = f"Linux {os.uname().release}, FUSE {version[0]}.{version[1]}; a mount was tried and works"
    if version < OLDEST_PROTOCOL:
        return Check(name, PROBLEM, said, "Linux 5.2 or newer is needed")
    return Check(name, OK, said)


def others() -> Check:
    name = "other users"
    if os.geteuid() == 0:
        return Check(name, OK, "root may mount with --allow-other")
    try:
        lines = CONFIGURATION.read_text().splitlines()
    except OSError:
        lines = []
    if "user_allow_other" in (line.strip() for line in lines):
        return Check(name, OK, f"{CONFIGURATION} lets users mount with --allow-other")
    return Check(
        name,
        WARNING,
        "--allow-other is not permitted: sudo and containers can't enter the mount",
        f"as root: echo user_allow_other >> {CONFIGURATION}",
    )


def watches() -> Check:
    """Editors and build servers watch a tree with inotify, whatever file system it is on."""
    name = "inotify"
    try:
        watches, instances = (int((INOTIFY / each).read_text()) for each in ("max_user_watches", "max_user_instances"))
    except OSError as error:
        return Check(name, WARNING, f"inotify is not there: {error.strerror}", "programs that watch files will poll")
    said = f"{watches} watches, {instances} watchers a user"
    if watches < FEW_WATCHES:
        return Check(
            name, WARNING, f"{said}: too few for a large tree", "as root: sysctl fs.inotify.max_user_watches=524288"
        )
    if instances < FEW_INSTANCES:
        return Check(name, WARNING, f"{said}: too few watchers", "as root: sysctl fs.inotify.max_user_instances=1024")
    return Check(name, OK, said)


def watchman() -> Check:
    name = "watchman"
    try:
        refused = json.loads(WATCHMAN.read_text()).get("illegal_fstypes", [])
    except (OSError, ValueError, AttributeError):
        refused = []
    if any(str(each).startswith("fuse") for each in refused):
        return Check(name, WARNING, f"{WATCHMAN} refuses FUSE", f"take fuse out of illegal_fstypes in {WATCHMAN}")
    return Check(name, OK, "nothing forbids it to watch a mount")


# ---- the repository


def access(repository: Path) -> Check:
    name = "repository"
    found = repository.stat()
    if os.geteuid() not in (found.st_uid, 0):
        return Check(name, PROBLEM, f"{repository} belongs to user {found.st_uid}", "it works for its owner alone")
    if found.st_mode & 0o077:
        said = f"{repository} may be entered by others (mode {stat.S_IMODE(found.st_mode):04o})"
        return Check(name, WARNING, said, f"chmod 700 {repository}")
    return Check(name, OK, f"{repository} is its owner's alone")


def file_system(repository: Path) -> Check:
    name = "file system"
    kind = file_system_of(repository)
    if kind in NETWORK:
        return Check(
            name, PROBLEM, f"the repository is on {kind}: its locks don't hold there", "keep it on a local disk"
        )
    if kind in VOLATILE:
        return Check(name, WARNING, f"the repository is on {kind}: it is gone after a restart", "keep it on a disk")
    if kind.startswith("fuse"):
        return Check(
            name, WARNING, f"the repository is on {kind}, which may not keep what it syncs", "use a local disk"
        )
    return Check(name, OK, f"the repository is on {kind}")


def file_system_of(place: Path) -> str:
    """The kind of what is mounted there: the last of the innermost mountpoints."""
    inside = os.fsencode(place.resolve())
    best = (-1, "")
    for mountpoint, kind, _ in mount_lines():
        above = mountpoint.rstrip(b"/")
        if (inside == above or inside.startswith(above + b"/")) and len(above) >= best[0]:
            best = (len(above), kind)
    return best[1]


def space(repository: Path) -> Check:
    name = "space"
    disk = os.statvfs(repository)
    free = disk.f_bavail * disk.f_frsize
    said = f"{free // MIB} MiB are free"
    if disk.f_files and not disk.f_favail:
        return Check(name, PROBLEM, "no inodes are free", "remove files from that disk")
    if free < 64 * MIB:
        return Check(name, PROBLEM, said, "make room: writes are refused when it is full; fusecas gc may help")
    if free < GIB:
        return Check(name, WARNING, said, "make room; fusecas gc may help")
    return Check(name, OK, said)


def surroundings(repository: Path) -> Check:
    """Projects around the workspace, which a tool would take for its own."""
    name = "surroundings"
    place = recorded(repository) or repository / "work"
    found = [str(above / each) for above in place.parents for each in PROJECT_FILES if os.path.lexists(above / each)]
    if found:
        said = f"tools that look upwards from the workspace find {', '.join(found)}"
        mend = "git does not when fusecas runs it; for others fusecas adopt the project, or mount elsewhere"
        return Check(name, WARNING, said, mend)
    return Check(name, OK, "no project lies around the workspace")


def daemon(repository: Path) -> Check:
    name = "daemon"
    holder = _holder(repository)
    if holder is None:
        place = recorded(repository)
        if place is not None and is_stale(place):
            return Check(
                name, WARNING, f"a daemon was killed: its mount at {place} is stale", "fusecas mount, or umount"
            )
        return Check(name, OK, "none is running; fusecas mount starts one")
    try:
        with Client(repository, patience=PATIENCE) as client:
            return Check(name, OK, f"process {client.hello['pid']} answers, version {client.hello.get('version')}")
    except NoDaemon:
        return Check(name, WARNING, f"process {holder} has the repository, without a socket", "try again in a moment")
    except FusecasError as error:
        log = repository / "run" / "log"
        return Check(
            name, PROBLEM, f"process {holder}: {error.message}", f"see {log}; kill {holder}, then fusecas mount"
        )


def adopted(repository: Path, note: Note) -> Check:
    name = "adopted"
    folder = Places.of(repository, note).folder
    if note.step != Step.ADOPTED:
        deed = "adopting" if note.step == Step.ADOPTING else "releasing"
        return Check(name, WARNING, f"{deed} {folder} was interrupted", f"fusecas adopt {folder} goes on, or back")
    if is_mounted(folder):
        return Check(name, OK, f"{folder} is the workspace")
    if not folder.is_dir():
        return Check(name, WARNING, f"{folder}, which was adopted, is not there", "fusecas mount DIR, where it is now")
    if not is_pointer_folder(folder, repository):
        mend = "move what else is in it elsewhere, then fusecas mount"
        return Check(name, PROBLEM, f"{folder} holds more than the pointer to the repository", mend)
    return Check(name, OK, f"{folder} is the workspace, not mounted now")


def _holder(repository: Path) -> str | None:
    """Who holds the repository's lock, if anybody does."""
    try:
        descriptor = os.open(repository / SERVER, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, 20, 0).decode(errors="replace").strip()
    finally:
        os.close(descriptor)
    return None
