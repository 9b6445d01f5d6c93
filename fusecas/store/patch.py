"""Changes as text: unified diffs that `git apply` and `patch` accept, one-letter states, counts of lines."""

import difflib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fusecas.store.diff import META, Change, ChangeKind
from fusecas.store.kinds import Entry, EntryKind
from fusecas.store.snapshot import Snapshot

CONTEXT = 3
LARGEST_TEXT = 8 << 20
PROBE = 8000
MOST_COMPARISONS = 4_000_000
NO_NEWLINE = b"\\ No newline at end of file\n"
GIT_MODES = {EntryKind.SYMLINK: 0o120000}

Opcode = tuple[str, int, int, int, int]


def patch(reader: Snapshot, change: Change) -> Iterator[bytes]:
    """The lines of one change. What text can't show is said in a line."""
    old, new = change.old, change.new
    if (old is not None and old.is_directory) or (new is not None and new.is_directory):
        yield from _directory_lines(change)
        return
    if old is not None and new is not None and old.kind != new.kind:
        # As git does: the old one goes, the new one comes.
        yield from patch(reader, change._replace(kinds=frozenset({ChangeKind.REMOVED}), new=None, links=None))
        yield from patch(reader, change._replace(kinds=frozenset({ChangeKind.ADDED}), old=None, links=None))
        return
    old_path = change.path if change.old_path is None else change.old_path
    yield b"diff --git " + quoted(b"a/" + old_path) + b" " + quoted(b"b/" + change.path) + b"\n"
    yield from _mode_lines(old, new)
    if change.old_path is not None:
        yield b"similarity index 100%\nrename from " + quoted(old_path) + b"\nrename to " + quoted(change.path) + b"\n"
    if _content(old) != _content(new):
        yield from _content_lines(reader, old_path, change.path, old, new)


def _directory_lines(change: Change) -> Iterator[bytes]:
    kinds = ", ".join(sorted(change.kinds)).encode()
    origin = b"" if change.old_path is None else quoted(change.old_path) + b" -> "
    yield b"# directory " + origin + quoted(change.path or b".") + b": " + kinds + b"\n"


def _content(entry: Entry | None) -> tuple[object, ...]:
    return () if entry is None else (entry.kind, entry.target, entry.size, entry.count)


def git_mode(entry: Entry) -> int:
    return GIT_MODES.get(EntryKind(entry.kind), 0o100755 if entry.mode & 0o100 else 0o100644)


def _mode_lines(old: Entry | None, new: Entry | None) -> Iterator[bytes]:
    if old is None and new is not None:
        yield b"new file mode %o\n" % git_mode(new)
    elif new is None and old is not None:
        yield b"deleted file mode %o\n" % git_mode(old)
    elif old is not None and new is not None and git_mode(old) != git_mode(new):
        yield b"old mode %o\nnew mode %o\n" % (git_mode(old), git_mode(new))


def _content_lines(
    reader: Snapshot, old_path: bytes, path: bytes, old: Entry | None, new: Entry | None
) -> Iterator[bytes]:
    before, after = _text(reader, old), _text(reader, new)
    left = b"/dev/null" if old is None else quoted(b"a/" + old_path)
    right = b"/dev/null" if new is None else quoted(b"b/" + path)
    if before is None or after is None:
        yield b"Binary files " + left + b" and " + right + b" differ\n"
        return
    if not before and not after:
        return
    yield b"--- " + left + b"\n+++ " + right + b"\n"
    yield from unified(before, after)


def _text(reader: Snapshot, entry: Entry | None) -> list[bytes] | None:
    """A file's lines, a link's target; None for what is not text or too long to show."""
    if entry is None:
        return []
    if entry.kind == EntryKind.SYMLINK:
        return [entry.target or b""]
    if not entry.is_file or entry.size > LARGEST_TEXT:
        return None
    data = b"" if entry.target is None else reader.read_content(entry.target)
    return None if b"\0" in data[:PROBE] else _lines(data)


def _lines(data: bytes) -> list[bytes]:
    lines = data.split(b"\n")
    return [each + b"\n" for each in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


# ---- comparing lines


def opcodes(a: Sequence[bytes], b: Sequence[bytes]) -> list[Opcode]:
    """How to get from lines `a` to lines `b`. What would take too long to compare is replaced as a whole."""
    start, end = 0, 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    left, right = a[start : len(a) - end], b[start : len(b) - end]
    middle: list[Opcode]
    if len(left) * len(right) > MOST_COMPARISONS:
        middle = _anchored(left, right)
    else:
        middle = list(difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes())
    found: list[Opcode] = [("equal", 0, start, 0, start)] if start else []
    found += [(tag, i + start, j + start, k + start, m + start) for tag, i, j, k, m in middle]
    if end:
        found.append(("equal", len(a) - end, len(a), len(b) - end, len(b)))
    return found


def _anchored(a: Sequence[bytes], b: Sequence[bytes]) -> list[Opcode]:
    """In time about linear: lines that occur once in both, in the same order, are equal; between them, small parts
    are compared, large ones replaced."""
    anchors = _increasing([(i, j) for i, j in _unique_pairs(a, b)])
    found: list[Opcode] = []
    i = j = 0
    for x, y in [*anchors, (len(a), len(b))]:
        found += _between(a[i:x], b[j:y], i, j)
        if x < len(a) or y < len(b):
            found.append(("equal", x, x + 1, y, y + 1))
        i, j = x + 1, y + 1
    return found


def _between(a: Sequence[bytes], b: Sequence[bytes], i: int, j: int) -> list[Opcode]:
    if not a and not b:
        return []
    if len(a) * len(b) <= 10_000:
        matcher = difflib.SequenceMatcher(None, a, b, autojunk=False)
        return [(tag, i + w, i + x, j + y, j + z) for tag, w, x, y, z in matcher.get_opcodes()]
    return [("replace", i, i + len(a), j, j + len(b))]


def _unique_pairs(a: Sequence[bytes], b: Sequence[bytes]) -> list[tuple[int, int]]:
    def once(lines: Sequence[bytes]) -> dict[bytes, int]:
        places: dict[bytes, int] = {}
        for at, line in enumerate(lines):
            places[line] = -1 if line in places else at
        return {line: at for line, at in places.items() if at >= 0}

    left, right = once(a), once(b)
    return [(at, right[line]) for line, at in left.items() if line in right]


def _increasing(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest run of pairs that ascends in both, by patience sorting."""
    from bisect import bisect_left

    tails: list[int] = []
    tops: list[int] = []
    before: list[int] = []
    for at, (_, j) in enumerate(pairs):
        pile = bisect_left(tails, j)
        before.append(tops[pile - 1] if pile else -1)
        if pile == len(tails):
            tails.append(j)
            tops.append(at)
        else:
            tails[pile], tops[pile] = j, at
    run: list[tuple[int, int]] = []
    at = tops[-1] if tops else -1
    while at >= 0:
        run.append(pairs[at])
        at = before[at]
    return run[::-1]


def unified(a: Sequence[bytes], b: Sequence[bytes]) -> Iterator[bytes]:
    """Hunks with three lines of context."""
    for hunk in _hunks(opcodes(a, b)):
        i, j = hunk[0][1], hunk[-1][2]
        k, m = hunk[0][3], hunk[-1][4]
        yield b"@@ -%s +%s @@\n" % (_range(i, j), _range(k, m))
        for tag, w, x, y, z in hunk:
            if tag == "equal":
                yield from (_line(b" ", line) for line in a[w:x])
            else:
                yield from (_line(b"-", line) for line in a[w:x])
                yield from (_line(b"+", line) for line in b[y:z])


def _line(sign: bytes, line: bytes) -> bytes:
    return sign + line if line.endswith(b"\n") else sign + line + b"\n" + NO_NEWLINE


def _range(start: int, stop: int) -> bytes:
    length = stop - start
    if length == 1:
        return b"%d" % (start + 1)
    return b"%d,%d" % (start + 1 if length else start, length)


def _hunks(codes: Sequence[Opcode]) -> Iterator[list[Opcode]]:
    hunk: list[Opcode] = []
    for at, (tag, i, j, k, m) in enumerate(codes):
        if tag != "equal":
            hunk.append((tag, i, j, k, m))
            continue
        first, last = at == 0, at == len(codes) - 1
        if first or last or j - i > 2 * CONTEXT:
            if not first:
                hunk.append((tag, i, min(j, i + CONTEXT), k, min(m, k + CONTEXT)))
                yield hunk
            hunk = [] if last else [(tag, max(i, j - CONTEXT), j, max(k, m - CONTEXT), m)]
        else:
            hunk.append((tag, i, j, k, m))
    if any(tag != "equal" for tag, *_ in hunk):
        yield hunk


# ---- summaries


class Stat(NamedTuple):
    """How much of a path changed. Lines are None for what is not text."""

    path: bytes
    added: int | None
    removed: int | None
    old_size: int
    new_size: int


def stat(reader: Snapshot, change: Change) -> Stat:
    old, new = change.old, change.new
    sizes = old.size if old and old.is_file else 0, new.size if new and new.is_file else 0
    if _content(old) == _content(new) or (new or old or Entry(b"", 0, 0)).is_directory:
        return Stat(change.path, 0, 0, *sizes)
    before, after = _text(reader, old), _text(reader, new)
    if before is None or after is None:
        return Stat(change.path, None, None, *sizes)
    codes = [code for code in opcodes(before, after) if code[0] != "equal"]
    return Stat(change.path, sum(m - k for *_, k, m in codes), sum(j - i for _, i, j, _, _ in codes), *sizes)


def letter(change: Change) -> str:
    """A D R T M, or t for what concerns attributes only."""
    letters = {
        ChangeKind.ADDED: "A",
        ChangeKind.REMOVED: "D",
        ChangeKind.RENAMED: "R",
        ChangeKind.TYPE: "T",
        ChangeKind.MODIFIED: "M",
    }
    return next((sign for kind, sign in letters.items() if kind in change.kinds), "m")


def attributes(change: Change) -> list[str]:
    """The attributes that changed, as words."""
    return sorted(kind.value for kind in change.kinds & META)


def quoted(path: bytes) -> bytes:
    """A path as git writes it: in quotes if it holds what a line can't."""
    if all(32 <= byte < 127 and byte not in b'"\\' for byte in path):
        return path
    signs = {7: b"\\a", 8: b"\\b", 9: b"\\t", 10: b"\\n", 11: b"\\v", 12: b"\\f", 13: b"\\r", 34: b'\\"', 92: b"\\\\"}
    parts = (signs.get(byte) or (bytes([byte]) if 32 <= byte < 127 else b"\\%03o" % byte) for byte in path)
    return b'"' + b"".join(parts) + b'"'
