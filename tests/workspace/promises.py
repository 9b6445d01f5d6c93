"""What a workspace was, one state after the other, and which of them a crash may leave."""

import stat
from dataclasses import dataclass
from typing import Any

Tree = dict[bytes, tuple[Any, ...]]


@dataclass
class Promise:
    """Of one workspace: its states, the last one that of now. A power cut leaves one of those from `sure` on.

    `is_seen`: since the last crash. Who has not been looked at since is one of the states from `first` on.
    """

    past: list[Tree]
    sure: int = 0
    first: int = 0
    is_seen: bool = True

    def after_crash(self, is_power: bool, before: int | None = None) -> "Promise":
        """`before`: the number of the state before what was done when the crash came."""
        if is_power:
            return Promise(self.past[self.sure :], is_seen=False)
        first = len(self.past) - 1 if before is None else before
        return Promise(self.past, self.sure, first if self.is_seen else self.first, is_seen=False)

    def meet(self, now: Tree) -> None:
        """It is as it may be; if it was not known how, it is now, and it is certain."""
        possible = self.past[-1:] if self.is_seen else self.past[self.first :]
        if now not in possible:
            raise AssertionError(f"found:\n{shown(now)}\nallowed:\n" + "\n".join(map(shown, possible)))
        if not self.is_seen:
            self.past, self.sure, self.first, self.is_seen = [now], 0, 0, True


def tree_of(overlay: Any) -> Tree:
    found: Tree = {}

    def walk(path: bytes, ino: int) -> None:
        for name, _ in overlay.names(ino)[0]:
            there, mode, links, uid, gid, _, size, _, _, mtime, ctime = overlay.lookup(ino, name)
            where = path + b"/" + name
            if stat.S_ISDIR(mode):
                found[where] = (there, mode, uid, gid, mtime, ctime)
                walk(where, there)
            else:
                content = overlay.read(there, 0, size + 1)
                found[where] = (there, mode, links, uid, gid, mtime, ctime, content)
            overlay.forget(there, 1)

    walk(b"", 0)
    return found


def contents_of(tree: Tree) -> dict[int, bytes]:
    return {what[0]: what[-1] for what in tree.values() if isinstance(what[-1], bytes)}


def shown(tree: Tree) -> str:
    lines = [f"  {path.decode()} {what[:-1]} {short(what[-1])}" for path, what in sorted(tree.items())]
    return "\n".join(lines) or "  (empty)"


def short(content: Any) -> str:
    if not isinstance(content, bytes):
        return ""
    runs: list[tuple[int, int]] = []
    for byte in content:
        if runs and runs[-1][0] == byte:
            runs[-1] = (byte, runs[-1][1] + 1)
        else:
            runs.append((byte, 1))
    return " ".join(f"{byte}x{count}" for byte, count in runs[:12])
