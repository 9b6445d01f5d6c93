"""Changes as text: diffs that `git apply` accepts (and `patch`, but for what is binary), letters, counts of lines.

What such a diff can't say (owners, attributes, most modes, empty directories, pipes) is said in a line that begins
with `#`, which those programs pass over.
"""

import difflib
import hashlib
import zlib
from base64 import b85encode
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fusecas.store import trees
from fusecas.store.diff import META, Change, ChangeKind
from fusecas.store.kinds import Entry, EntryKind
from fusecas.store.snapshot import Snapshot

CONTEXT = 3
LARGEST_TEXT = 8 << 20
LARGEST_BINARY = 64 << 20
PROBE = 8000
MOST_COMPARISONS = 4_000_000
NO_NEWLINE = b"\\ No newline at end of file\n"
SHOWN = (EntryKind.FILE, EntryKind.SYMLINK)
NO_BLOB = b"0" * 40

Opcode = tuple[str, int, int, int, int]


def patch(reader: Snapshot, change: Change) -> Iterator[bytes]:
    """The lines of one change."""
    old, new = _shown(change.old), _shown(change.new)
    unsaid = _unsaid(change)
    if unsaid:
        origin = b"" if change.old_path is None else quoted(change.old_path) + b" -> "
        yield b"# " + origin + quoted(change.path or b".") + b": " + ", ".join(unsaid).encode() + b"\n"
    if change.old_path is not None and change.old is not None and change.old.is_directory:
        yield from _moved_files(reader, change)
    elif old is not None and new is not None and old.kind != new.kind:
        # As git does: the old one goes, the new one comes.
        yield from _one_file(reader, change.path, change.path, old, None)
        yield from _one_file(reader, change.path, change.path, None, new)
    else:
        yield from _one_file(reader, change.old_path or change.path, change.path, old, new)


def _shown(entry: Entry | None) -> Entry | None:
    """Only files and links are in a diff."""
    return entry if entry is not None and entry.kind in SHOWN else None


def _unsaid(change: Change) -> list[str]:
    """What of a change no diff can say."""
    kinds = set(change.kinds)
    old, new = _shown(change.old), _shown(change.new)
    if old is not None and new is not None and git_mode(old) != git_mode(new):
        kinds.discard(ChangeKind.MODE)
    if old is not None or new is not None:
        kinds &= META
    return sorted(kind.value for kind in kinds)


def _moved_files(reader: Snapshot, change: Change) -> Iterator[bytes]:
    """A directory that was moved is, to a diff, all its files."""
    assert change.old is not None and change.old_path is not None
    for below, entry in trees.walk(reader, change.old.target):
        if entry.kind in SHOWN:
            places = trees.join(change.old_path, below), trees.join(change.path, below)
            yield from _one_file(reader, *places, entry, entry)


def _one_file(reader: Snapshot, old_path: bytes, path: bytes, old: Entry | None, new: Entry | None) -> Iterator[bytes]:
    is_same = _content(old) == _content(new)
    if old_path == path and is_same and (old is None or new is None or git_mode(old) == git_mode(new)):
        return
    before, after = (None, None) if is_same else (_data(reader, old), _data(reader, new))
    if not is_same and (before is None or after is None):
        yield b"# " + quoted(path) + b": too large for a diff\n"
        return
    yield b"diff --git " + quoted(b"a/" + old_path) + b" " + quoted(b"b/" + path) + b"\n"
    yield from _mode_lines(old, new)
    if old_path != path:
        yield b"similarity index 100%\nrename from " + quoted(old_path) + b"\nrename to " + quoted(path) + b"\n"
    if before is not None and after is not None:
        if _is_text(before) and _is_text(after):
            yield from _text_lines(old_path, path, old, new, before, after)
        else:
            yield from _binary_lines(old, new, before, after)


def _content(entry: Entry | None) -> tuple[object, ...]:
    return () if entry is None else (entry.kind, entry.target, entry.size, entry.count)


def git_mode(entry: Entry) -> int:
    if entry.kind == EntryKind.SYMLINK:
        return 0o120000
    return 0o100755 if entry.mode & 0o100 else 0o100644


def _mode_lines(old: Entry | None, new: Entry | None) -> Iterator[bytes]:
    if old is None and new is not None:
        yield b"new file mode %o\n" % git_mode(new)
    elif new is None and old is not None:
        yield b"deleted file mode %o\n" % git_mode(old)
    elif old is not None and new is not None and git_mode(old) != git_mode(new):
        yield b"old mode %o\nnew mode %o\n" % (git_mode(old), git_mode(new))


def _data(reader: Snapshot, entry: Entry | None) -> bytes | None:
    """A file's bytes, a link's target; None for what is too large."""
    if entry is None:
        return b""
    if entry.kind == EntryKind.SYMLINK:
        return entry.target or b""
    if entry.size > LARGEST_BINARY:
        return None
    return b"" if entry.target is None else reader.read_content(entry.target)


def _is_text(data: bytes) -> bool:
    return len(data) <= LARGEST_TEXT and b"\0" not in data[:PROBE]


def _text_lines(
    old_path: bytes, path: bytes, old: Entry | None, new: Entry | None, before: bytes, after: bytes
) -> Iterator[bytes]:
    if before or after:
        yield b"--- " + (b"/dev/null" if old is None else _in_header(b"a/" + old_path)) + b"\n"
        yield b"+++ " + (b"/dev/null" if new is None else _in_header(b"b/" + path)) + b"\n"
        yield from unified(_lines(before), _lines(after))


def _in_header(path: bytes) -> bytes:
    """A name with a space ends with a tab: else `patch` takes what follows the space for a time."""
    name = quoted(path)
    return name + b"\t" if b" " in name and not name.startswith(b'"') else name


def _binary_lines(old: Entry | None, new: Entry | None, before: bytes, after: bytes) -> Iterator[bytes]:
    """As `git diff --binary` does: both whole contents, so that it can be applied in reverse, too."""
    blobs = [NO_BLOB if entry is None else _blob(data) for entry, data in ((old, before), (new, after))]
    same_mode = b"" if old is None or new is None or git_mode(old) != git_mode(new) else b" %o" % git_mode(new)
    yield b"index " + blobs[0] + b".." + blobs[1] + same_mode + b"\n"
    yield b"GIT binary patch\n"
    for data in (after, before):
        yield b"literal %d\n" % len(data)
        packed = zlib.compress(data)
        for at in range(0, len(packed), 52):
            piece = packed[at : at + 52]
            length = len(piece) + (ord("A") - 1 if len(piece) <= 26 else ord("a") - 27)
            yield bytes([length]) + b85encode(piece, pad=True) + b"\n"
        yield b"\n"


def _blob(data: bytes) -> bytes:
    """The name that git has for these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest().encode()


def _text(reader: Snapshot, entry: Entry | None) -> list[bytes] | None:
    """The lines of a file or of a link's target; None for what is not text or too long to compare."""
    if entry is not None and entry.kind not in SHOWN:
        return None
    data = None if entry is not None and entry.size > LARGEST_TEXT else _data(reader, entry)
    return _lines(data) if data is not None and _is_text(data) else None


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
