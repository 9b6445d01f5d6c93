"""Our own descriptor of /dev/fuse, and the mount that stands on it.

libfuse always asks the kernel for AUTO_INVAL_DATA and never for DONT_MASK, and has no switch for either: then every
read of a page that was just written costs two requests, and default ACLs under a umask come out wrong. So the first
answer passes through our hands: pyfuse3 is given one end of a socket pair, its answer to INIT is changed on the way to
the kernel, and then the real descriptor is put under the number that it knows.
"""

import ctypes
import errno
import os
import re
import select
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fusecas.errors import EnvironmentProblem, PermissionProblem

DEVICE = "/dev/fuse"
KIND = "fuse.fusecas"
MS_NOSUID, MS_NODEV, MS_BIND = 2, 4, 4096
MNT_DETACH = 2
HEADER = 16
REQUEST_HEADER = 40
PATIENCE = 5.0
FLAGS = HEADER + 12
LARGEST_REQUEST = 1 << 21
DONT_MASK = 1 << 6
AUTO_INVAL_DATA = 1 << 12
PARALLEL_DIROPS = 1 << 18
CACHE_SYMLINKS = 1 << 23
EXPLICIT_INVAL_DATA = 1 << 25
NOTIFY_INVAL_INODE, NOTIFY_INVAL_ENTRY = 2, 3

libc = ctypes.CDLL(None, use_errno=True)


class Device:
    """Owns the descriptor and the mount. `start` must be called before pyfuse3 is initialised with `path`."""

    def __init__(self, mountpoint: Path, *, allow_other: bool) -> None:
        self.mountpoint = mountpoint
        self._as_root = os.geteuid() == 0
        self._descriptor = self._mount_as_root(allow_other) if self._as_root else self._mount_as_user(allow_other)
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Whoever waits for the socket goes on waiting for it after its number leads to the device: it must live on.
        self._waited_for = self._theirs.dup()
        self.failure: BaseException | None = None

    @property
    def path(self) -> str:
        """What pyfuse3 is to mount: the descriptor that libfuse takes as one that is mounted already."""
        return f"/dev/fd/{self._theirs.fileno()}"

    def _mount_as_root(self, allow_other: bool) -> int:
        try:
            descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise no_device(error) from error
        options = f"fd={descriptor},rootmode=40755,user_id=0,group_id=0,default_permissions"
        options += ",allow_other" if allow_other else ""
        target = os.fsencode(self.mountpoint)
        if libc.mount(b"fusecas", target, b"fuse.fusecas", MS_NOSUID | MS_NODEV, options.encode()) != 0:
            number = ctypes.get_errno()
            os.close(descriptor)
            raise EnvironmentProblem(f"{self.mountpoint} can't be mounted: {os.strerror(number)}")
        return descriptor

    def _mount_as_user(self, allow_other: bool) -> int:
        ours, theirs = socket.socketpair()
        options = "nosuid,nodev,default_permissions,fsname=fusecas,subtype=fusecas"
        options += ",allow_other" if allow_other else ""
        words = ["fusermount3", "-o", options, "--", os.fspath(self.mountpoint)]
        environment = {**os.environ, "_FUSE_COMMFD": str(theirs.fileno())}
        try:
            done = subprocess.run(words, env=environment, pass_fds=(theirs.fileno(),), capture_output=True, text=True)
        except FileNotFoundError as error:
            raise EnvironmentProblem("fusermount3 is not there", hint="install the package fuse3") from error
        finally:
            theirs.close()
        with ours:
            if done.returncode != 0:
                said = done.stderr.strip().removeprefix("fusermount3: ")
                raise PermissionProblem(f"{self.mountpoint} can't be mounted: {said}", hint=hint_of(said))
            _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
        os.set_inheritable(descriptors[0], False)
        return descriptors[0]

    def start(self) -> None:
        """Take the kernel's first request, and pass pyfuse3's answer on: in a thread, while pyfuse3 begins."""
        threading.Thread(target=self._introduce, name="fuse-init", daemon=True).start()

    def _introduce(self) -> None:
        try:
            self._ours.send(os.read(self._descriptor, LARGEST_REQUEST))
            answer = bytearray(self._ours.recv(1 << 16))
            (flags,) = struct.unpack_from("<I", answer, FLAGS)
            flags |= DONT_MASK | PARALLEL_DIROPS | CACHE_SYMLINKS | EXPLICIT_INVAL_DATA
            struct.pack_into("<I", answer, FLAGS, flags & ~AUTO_INVAL_DATA)
            os.dup2(self._descriptor, self._theirs.fileno(), inheritable=False)
            os.write(self._descriptor, bytes(answer))
            # pyfuse3 waits on the socket that was there before: it is woken once a request waits on the device.
            asking = threading.Thread(target=self._ask, name="fuse-wake", daemon=True)
            asking.start()
            select.select([self._descriptor], [], [])
            self._ours.send(b"wake")
        except BaseException as error:  # noqa: BLE001 - told by whoever waits for the mount
            self.failure = error

    def _ask(self) -> None:
        try:
            os.stat(self.mountpoint)
        except OSError:
            return  # unmounted in the meantime: nobody waits for the answer

    def notify_inode(self, node: int, offset: int = 0, length: int = 0) -> None:
        """Drop what the kernel has of an inode: attributes, and pages from `offset` on (negative: none). Waits for
        what it must write back first, so never call this from a handler."""
        self._notify(NOTIFY_INVAL_INODE, struct.pack("<Qqq", node, offset, length))

    def notify_entry(self, parent: int, name: bytes) -> None:
        self._notify(NOTIFY_INVAL_ENTRY, struct.pack("<QII", parent, len(name), 0) + name + b"\0")

    def _notify(self, code: int, body: bytes) -> None:
        message = struct.pack("<IiQ", HEADER + len(body), code, 0) + body
        try:
            os.write(self._descriptor, message)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # the kernel does not know it: nothing to drop
                raise

    def unmount(self, *, lazy: bool = False) -> None:
        """EBUSY, as an EnvironmentProblem, while somebody is in it, unless `lazy`."""
        if self._as_root:
            if libc.umount2(os.fsencode(self.mountpoint), MNT_DETACH if lazy else 0) != 0:
                number = ctypes.get_errno()
                if number != errno.EINVAL:  # it is no mount any more
                    raise OSError(number, os.strerror(number), os.fspath(self.mountpoint))
            return
        words = ["fusermount3", "-u", *(["-z"] if lazy else []), "--", os.fspath(self.mountpoint)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode != 0 and is_mounted(self.mountpoint):
            is_busy = os.strerror(errno.EBUSY) in done.stderr
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY) if is_busy else done.stderr.strip())

    def close(self) -> None:
        os.close(self._descriptor)
        self._ours.close()
        self._waited_for.close()


def ask_kernel(mountpoint: Path) -> tuple[int, int]:
    """Mount there for a moment, and read which version of FUSE the kernel's first request speaks."""
    device = Device(mountpoint, allow_other=False)
    try:
        if not select.select([device._descriptor], [], [], PATIENCE)[0]:
            raise EnvironmentProblem(f"the kernel asks nothing at {mountpoint}")
        major, minor = struct.unpack_from("<II", os.read(device._descriptor, LARGEST_REQUEST), REQUEST_HEADER)
        return major, minor
    finally:
        device.unmount(lazy=True)
        device._theirs.close()
        device.close()


def hint_of(said: str) -> str:
    """What helps against a refusal of fusermount3."""
    if "user_allow_other" in said:
        return "as root: echo user_allow_other >> /etc/fuse.conf"
    if DEVICE in said:
        return "as root: chmod 666 /dev/fuse"
    if "too many FUSE filesystems" in said:
        return "umount some, or raise mount_max in /etc/fuse.conf"
    return "fusecas doctor says what is missing"


def no_device(error: OSError) -> EnvironmentProblem:
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionProblem(f"{DEVICE}: {error.strerror}", hint="chmod 666 /dev/fuse, or be in its group")
    return EnvironmentProblem(f"{DEVICE}: {error.strerror}", hint="modprobe fuse; in a container: --device /dev/fuse")


def mount_lines() -> Iterator[tuple[bytes, str, bytes]]:
    """(mountpoint, kind, options of its kind) of each mount, as this process sees them."""
    with open("/proc/self/mountinfo", "rb") as table:
        for line in table:
            before, _, after = line.partition(b" - ")
            kind, _, options = after.split(b" ", 2)
            yield unescaped(before.split(b" ")[4]), kind.decode(), options


class Mount(NamedTuple):
    is_ours: bool
    owner: tuple[int, int] | None
    """User and group who mounted it through FUSE."""


def mount_at(mountpoint: Path) -> Mount | None:
    """What is mounted there, the last if there are several."""
    wanted = os.fsencode(mountpoint)
    found = None
    for place, kind, options in mount_lines():
        if place == wanted:
            ids = re.search(rb"\buser_id=(\d+),group_id=(\d+)", options)
            found = Mount(kind == KIND, (int(ids[1]), int(ids[2])) if ids else None)
    return found


def is_mounted(mountpoint: Path) -> bool:
    return mount_at(mountpoint) is not None


def is_stale(mountpoint: Path) -> bool:
    """Whether a mount of ours is there whose daemon is gone. What is cached still answers: this asks what never is."""
    found = mount_at(mountpoint)
    if found is None or not found.is_ours:
        return False
    try:
        told = os.statvfs(mountpoint)
    except OSError as error:
        return error.errno == errno.ENOTCONN
    # Who is not its owner is told zeros, root too, without a look at whether a daemon is there.
    return told.f_bsize == 0 and found.owner is not None and _is_stale_for(found.owner, mountpoint)


def _is_stale_for(owner: tuple[int, int], mountpoint: Path) -> bool:
    """Asked in the owner's name, which only root can."""
    if os.geteuid() != 0:
        return False
    user, group = owner
    words = ["stat", "--file-system", "--", os.fspath(mountpoint)]
    done = subprocess.run(
        words, user=user, group=group, extra_groups=[], capture_output=True, env={"LC_ALL": "C", "PATH": os.defpath}
    )
    return os.strerror(errno.ENOTCONN).encode() in done.stderr


def unescaped(field: bytes) -> bytes:
    """A field of mountinfo: blanks and the like are octal there."""
    parts = field.split(b"\\")
    return parts[0] + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in parts[1:])


def other_places(mountpoint: Path) -> list[Path]:
    """Where else what is mounted there is mounted, or a part of it."""
    wanted = os.fsencode(mountpoint)
    with open("/proc/self/mountinfo", "rb") as table:
        fields = [line.split(b" ") for line in table]
    places = [(each[2], unescaped(each[4])) for each in fields]
    devices = {device for device, place in places if place == wanted}
    return [Path(os.fsdecode(place)) for device, place in places if device in devices and place != wanted]


def bind_mount(source: bytes, place: Path) -> bool:
    """Whether we may."""
    if libc.mount(source, os.fsencode(place), None, MS_BIND, None) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EPERM, errno.EACCES):
        return False
    raise OSError(number, os.strerror(number), os.fspath(place))


def detach(mountpoint: Path) -> None:
    """Take a stale mount away."""
    if subprocess.run(["fusermount3", "-uz", "--", os.fspath(mountpoint)], capture_output=True).returncode != 0:
        libc.umount2(os.fsencode(mountpoint), MNT_DETACH)
