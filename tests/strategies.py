"""The tests' shared vocabulary: names, files, folders, CBOR values."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fusecas._native import Ref

NASTY = [b"-rf", b" ", b"\n", b"\xff\xfe", b"a" * 255, b"...", b"~", b"*", b"\xc3\xa9", b"e\xcc\x81", b"CON", b"a\tb"]

names = st.one_of(
    st.sampled_from(NASTY),
    st.sampled_from([b"a", b"b", b"c", b"src", b"lib.rs", b"Makefile"]),
    st.binary(min_size=1, max_size=24).filter(
        lambda name: not set(name) & {0, 47} and name not in (b".", b"..", b".fusecas")
    ),
)
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
ids = st.binary(min_size=32, max_size=32)
modes = st.sampled_from([0o644, 0o755, 0o600, 0o000, 0o4755, 0o2755, 0o1777, 0o7777, 0o444])
times = st.integers(-(2**31), 2**33).flatmap(lambda s: st.integers(0, 999_999_999).map(lambda ns: s * 10**9 + ns))
contents = st.one_of(
    st.just(b""),
    st.binary(max_size=64),
    st.integers(0, 2**32).map(lambda seed: seed.to_bytes(8, "big") * 20_000),
)
xattrs = st.dictionaries(
    st.sampled_from(["user.a", "user.b", "user.long name"]), st.one_of(st.binary(max_size=8), st.just(b"x" * 300))
)

cbor_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**64), 2**64 - 1),
        st.floats(allow_nan=False),
        st.binary(max_size=40),
        st.text(max_size=20),
        ids.map(Ref),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=8), inner, max_size=5)),
    max_leaves=20,
)


@dataclass
class Planned:
    """A file, folder or other thing to be made on disk."""

    kind: str
    mode: int = 0o644
    data: bytes = b""
    mtime: int = 10**18
    xattrs: dict[str, bytes] = field(default_factory=dict)
    owner: tuple[int, int] = (0, 0)
    below: dict[bytes, "Planned"] = field(default_factory=dict)


owners = st.sampled_from([(0, 0), (0, 0), (0, 0), (1000, 0), (0, 7), (12, 34)])
plain_files = st.builds(Planned, st.just("file"), modes, contents, times, xattrs, owners)
links = st.builds(
    Planned,
    st.just("symlink"),
    st.just(0o777),
    st.binary(min_size=1, max_size=40).filter(lambda text: 0 not in text),
    times,
    st.just({}),
    owners,
)
others = st.builds(
    Planned, st.sampled_from(["fifo", "socket", "device", "block", "hardlink"]), modes, st.just(b""), times
)
folders = st.recursive(
    st.builds(Planned, st.just("folder"), modes, st.just(b""), times, xattrs, owners),
    lambda inner: st.builds(
        Planned,
        st.just("folder"),
        modes,
        st.just(b""),
        times,
        xattrs,
        owners,
        st.dictionaries(names, st.one_of(plain_files, plain_files, links, others, inner), max_size=6),
    ),
    max_leaves=6,
)


def make(plan: Planned, place: Path) -> None:
    """Make what is planned. A hard link is to the first plain file, wherever that is; without one, a plain file."""
    files: list[bytes] = []
    os.mkdir(place)
    _fill(plan, os.fsencode(place), files)
    _finish(plan, os.fsencode(place))


def _fill(plan: Planned, place: bytes, files: list[bytes]) -> None:
    for name, each in plan.below.items():
        path = place + b"/" + name
        match each.kind:
            case "folder":
                os.mkdir(path)
                _fill(each, path, files)
            case "symlink":
                os.symlink(each.data, path)
            case "fifo":
                os.mkfifo(path)
            case "socket":
                os.mknod(path, stat.S_IFSOCK | 0o600)
            case "device":
                os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
            case "block":
                os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(7, 260))
            case "hardlink" if files:
                os.link(files[0], path)
                continue
            case _:
                with open(path, "wb") as file:
                    file.write(each.data)
                files.append(path)
        _finish(each, path)


def _finish(each: Planned, path: bytes) -> None:
    os.chown(path, *each.owner, follow_symlinks=False)
    for key, value in each.xattrs.items():
        os.setxattr(path, key, value, follow_symlinks=False)
    if each.kind != "symlink":
        os.chmod(path, each.mode)
    os.utime(path, ns=(each.mtime, each.mtime), follow_symlinks=False)


def observe(place: Path) -> dict[bytes, dict[str, Any]]:
    """Everything that a user can see of a folder, by path."""
    root = os.fsencode(place)
    seen: dict[bytes, dict[str, Any]] = {}
    inodes: dict[int, list[bytes]] = {}
    for directory, folders_here, files_here in os.walk(root):
        for name in [b"", *folders_here, *files_here] if directory == root else [*folders_here, *files_here]:
            path = os.path.join(directory, name) if name else directory
            relative = os.path.relpath(path, root)
            seen[relative] = _observe_one(path)
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                inodes.setdefault(os.lstat(path).st_ino, []).append(relative)
    for group in inodes.values():
        for each in group:
            seen[each]["group"] = sorted(group)
    return seen


def _observe_one(path: bytes) -> dict[str, Any]:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    fields: dict[str, Any] = {
        "kind": kind,
        "mode": stat.S_IMODE(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "mtime": status.st_mtime_ns,
        "xattrs": {
            name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
        },
    }
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            fields["data"] = file.read()
    elif kind == stat.S_IFLNK:
        fields["target"] = os.readlink(path)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        fields["device"] = status.st_rdev
    return fields


def remove(place: Path) -> None:
    """A folder whose modes may be in the way of an ordinary rmtree."""
    import shutil

    shutil.rmtree(place)
