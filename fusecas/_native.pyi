"""The native core (native/src). Everything that takes long releases the GIL. Bytes may come as any contiguous buffer.

FormatError is raised for bytes and values that docs/format.md does not allow; TypeError for arguments of other types.
"""

from collections.abc import Callable, Sequence
from typing import Any

Bytes = bytes
Buffer = bytes | bytearray | memoryview

__version__: str

class FormatError(ValueError): ...

class Ref:
    """A reference to an object in a node: 32 bytes under CBOR's tag 202."""

    def __init__(self, id: bytes) -> None: ...
    @property
    def id(self) -> bytes: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

# Canonical CBOR

def cbor_encode(value: Any) -> bytes:
    """None, bool, int, float, bytes, str, Ref, list or tuple, dict with text keys."""

def cbor_decode(data: Buffer) -> Any:
    """Refuses whatever cbor_encode would not have written."""

def cbor_refs(data: Buffer) -> list[bytes]:
    """The ids that a node refers to, each once, in order; the data are checked like cbor_decode's."""

# Ids

def content_hash(data: Buffer) -> bytes: ...
def node_id(kind: int, data: Buffer) -> bytes: ...
def git_index_digest(data: Buffer) -> bytes | None: ...
def log_chain(previous: bytes, key: bytes, value: bytes) -> bytes: ...

# Nodes of prolly trees

def is_cut(level: int, key: bytes) -> bool:
    """Whether the split rule ends a node after this key."""

def decode_node(kind: int, data: Buffer) -> tuple[int, list[tuple[Any, ...]], int, int]:
    """(level, entries, n, bytes) of one node, with all checks that one node allows; n and bytes as the inner entry
    above must have them.

    Entries: tree (name, kind, mode, target, size, count, ext); links (path, group); times (name, mtime, child);
    inodes (name, number, ctime, child); map (key, value); log (key, value, chain); inner (last key, child, n, bytes).
    """

def encode_level(
    kind: int, level: int, entries: Sequence[tuple[Any, ...]]
) -> list[tuple[bytes, bytes, bytes, int, int]]:
    """Cut entries into nodes: (id, data, last key, n, bytes) of each."""

def open_tail(level: int, entries: Sequence[tuple[Any, ...]]) -> int:
    """How many entries at the end, of some that begin a node, are in no whole node yet."""

def check_ext(ext: Any) -> None:
    """Raise FormatError unless this is a well-formed extension map of a root."""

# Side trees; `load` and `save` take a kind as a number

def write_times(
    tree: bytes | None, time: int, load: Callable[[bytes, int], Buffer], save: Callable[[int, bytes], object]
) -> bytes | None:
    """A tree of times: the same one for each entry of `tree`."""

def shift_times(
    times: bytes,
    start_end: tuple[int, int],
    to: tuple[int, int],
    load: Callable[[bytes, int], Buffer],
    save: Callable[[int, bytes], object],
) -> tuple[bytes | None, list[tuple[bytes, int, bytes]]]:
    """A tree of times, those from start to end moved to where `to` is, in the same order; and the directories in it,
    each with its new time and the times of what is in it, which the new tree does not have yet."""

def write_inodes(
    tree: bytes | None,
    times: bytes | None,
    first: int,
    time: int,
    changes: Sequence[tuple[bytes, tuple[Any, ...] | None]],
    load: Callable[[bytes, int], Buffer],
    save: Callable[[int, bytes], object],
) -> bytes | None:
    """A tree of numbers, from `first` on in the order of a walk, with each entry's time, else `time`. But for
    `changes`: what a name has instead, or None if it is gone."""

# Rows

def pack_row(kind: int, codec: int, n: int, pack: int, offset: int, stored: int, size: int, created: int) -> bytes: ...
def unpack_row(data: Buffer) -> tuple[int, int, int, int, int, int, int, int]: ...
def pack_varints(numbers: Sequence[int]) -> bytes: ...
def unpack_varints(data: Buffer) -> list[int]: ...

# Content

class Batch:
    """Objects on their way to the store, each id once, in the order in which they came. Thread-safe."""

    def __init__(self) -> None: ...
    def add(self, kind: int, id: Bytes, data: Buffer) -> None: ...
    def __len__(self) -> int: ...
    def __contains__(self, id: Bytes) -> bool: ...
    @property
    def bytes(self) -> int: ...
    def ids(self) -> list[Bytes]: ...
    def kinds(self) -> Bytes: ...
    def sizes(self) -> list[int]: ...
    def refs(self, at: int) -> list[Bytes]: ...
    def compress(self, indices: Sequence[int], level: int = 3, threads: int = 2) -> Packed:
        """Chunks over 32 KiB get one level more."""

class Packed:
    @property
    def data(self) -> bytes:
        """The stored bytes, back to back."""

    @property
    def rows(self) -> list[tuple[int, int, int, int, int]]:
        """(index in the batch, codec, offset, stored, size) of each."""

class ContentWriter:
    """Content that arrives in pieces; cuts do not depend on how it arrives. Holds back under 1 MiB."""

    def __init__(self) -> None: ...
    @property
    def total(self) -> int: ...
    def feed(self, batch: Batch, data: Buffer) -> None: ...
    def feed_file(self, batch: Batch, fd: int, budget: int) -> int:
        """From the descriptor's position, up to about `budget` bytes of data, or 1 GiB of holes. 0 at the end."""

    def finish(self, batch: Batch) -> tuple[bytes, int]:
        """(content id, size)."""

def cut_bytes(batch: Batch, data: Buffer) -> tuple[bytes, int]:
    """(content id, size); nothing is added for an empty content."""

RecipeItem = tuple[bytes | None, int] | tuple[bytes, int, int]

def decode_recipe(content: bytes, data: Buffer) -> tuple[int, list[RecipeItem], bytes | None]:
    """(size, items, groups): an item is (chunk, length), (None, length of a hole), or (part, length, 1)."""

def decode_part(data: Buffer) -> list[tuple[bytes | None, int]]: ...
def update_content(
    batch: Batch,
    fd: int,
    size: int,
    old_size: int,
    old_items: Sequence[RecipeItem],
    old_groups: bytes | None,
    dirty: Sequence[tuple[int, int]],
    load_part: Callable[[bytes], Buffer] | None = None,
) -> bytes:
    """The id of a content that changed in places, from its old recipe; one chunk: [(id, size)], None.

    `dirty` are (offset, length) of what may have changed; what was added or cut off need not be named. Reads around
    these from the descriptor, loads the old parts there, adds what is new to the batch. Equal to a full cut.
    """

def decompress(data: Buffer, codec: int, size: int) -> bytes:
    """Stored bytes as they were put; FormatError unless they give exactly `size` bytes."""

def verify_objects(objects: Sequence[tuple[bytes, int, int, int, Buffer]], threads: int = 2) -> list[bool]:
    """For each (id, kind, codec, size, stored bytes): whether the bytes give the id."""

# Files

Listed = tuple[
    bytes, int, int, int, int, int, int, int, int, int, int, int, int, bytes | None, list[tuple[bytes, bytes]]
]

def list_names(fd: int) -> list[bytes]:
    """The names in a directory, in order."""

def look_at(fd: int, names: Sequence[bytes], trusted: bool = False) -> tuple[list[Listed], list[tuple[bytes, int]]]:
    """What these names of a directory are, no link followed: entries, and (name, errno) of what could not be read.

    An entry: (name, kind, mode, uid, gid, nlink, dev, ino, size, mtime, ctime, major, minor, link target, xattrs).
    """

def read_xattrs(fd: int, name: bytes, trusted: bool = False) -> list[tuple[bytes, bytes]]: ...
def read_files(
    batch: Batch, fd: int, wanted: Sequence[tuple[bytes, int, int, int]], threads: int = 2
) -> list[tuple[int, bytes | None, int, int]]:
    """Read whole files (name, device, inode, ctime) into the batch: (0, content id, size, mtime) of each.

    A file that can't be read gives its errno, one that kept changing -1, with None, 0, 0.
    """

Piece = tuple[int, int, int, Buffer, bytes]

def write_files(
    fd: int, new_files: Sequence[tuple[bytes, int, Sequence[Piece], int, int | None]], threads: int = 2
) -> list[int]:
    """Make files (name, mode, pieces, size, mtime) that must not be there: 0, -1 for corrupted pieces, or an errno.

    A piece: (offset, codec, size, stored bytes, id), verified before it is written; what no piece covers is a hole,
    and so is each whole page of zeros.
    """

def write_pieces(fd: int, pieces: Sequence[Piece], threads: int = 2) -> int:
    """Write pieces into a new file: 0, -1 for corrupted, or an errno. Its size is the caller's care."""

# The overlay

Attributes = tuple[int, int, int, int, int, tuple[int, int], int, int, int, int, int]
"""(inode, type and mode, links, uid, gid, (major, minor), size, blocks, atime, mtime, ctime); times in ns."""

class Overlay:
    """The writable top of one workspace (docs/dev/overlay.md). Thread-safe; every call lets go of the GIL.

    Raises OSError with the errno that POSIX asks for. What a call has returned survives the death of the process; what
    was done before `sync` was called survives a power cut once that returns.
    """

    def __init__(
        self,
        folder: Any,
        root: tuple[bytes | None, bytes | None, bytes | None, int],
        mode: int,
        ext: bytes | None,
        links: bytes | None,
        time: tuple[int, int, int],
        owner: tuple[int, int],
        next: int,
        ranges: Sequence[tuple[int, int, int | None]],
        same_boot: bool,
        load: Callable[[bytes, int], Buffer],
        read: Callable[[bytes, int, int | None], Buffer],
        source: Overlay | None = None,
        freeze_at: tuple[int, int] | None = None,
    ) -> None:
        """Open the files in `folder` over a state, and do again what `ranges` of the journal hold.

        root: tree, times, inodes, first number. time: of what has none; the root's own and when it was changed.
        source: of a fork that stands on what that one has frozen. freeze_at: forks stand on what is logged up to there,
        (stream, position): it is frozen again.
        """

    @staticmethod
    def view(
        root: tuple[bytes | None, bytes | None, bytes | None, int],
        mode: int,
        ext: bytes | None,
        links: bytes | None,
        time: tuple[int, int, int],
        owner: tuple[int, int],
        load: Callable[[bytes, int], Buffer],
        read: Callable[[bytes, int, int | None], Buffer],
    ) -> Overlay:
        """A state that is only looked at: what would change it is refused with EROFS. It has no files."""

    @property
    def ranges(self) -> list[tuple[int, int, int | None]]:
        """What was done again: each range with its end."""

    @property
    def stream(self) -> int:
        """The stream that is written to now; it begins at 0."""

    @property
    def position(self) -> int: ...
    @property
    def next_inode(self) -> int: ...
    @property
    def log_bytes(self) -> int:
        """How long the journal is that a start would have to do again."""

    @property
    def failed(self) -> bool:
        """Whether a sync has failed: then nothing is changed or made durable any more until it is opened again."""

    def lookup(self, parent: int, name: bytes) -> Attributes | None:
        """What is at a name; the caller then holds it until `forget`."""

    def lookup_each(self, parent: int, names: Sequence[bytes]) -> list[Attributes | None]: ...
    def forget(self, ino: int, count: int) -> None: ...
    def forget_each(self, inos: Sequence[int]) -> None:
        """One reference less to each."""

    def looked_up(self, ino: int) -> None: ...
    def getattr(self, ino: int) -> Attributes: ...
    def readlink(self, ino: int) -> bytes: ...
    def names(
        self, ino: int, after: bytes | None = None, most: int = 512
    ) -> tuple[list[tuple[bytes, int]], bytes | None]: ...
    def parent(self, ino: int) -> int: ...
    def path(self, ino: int) -> bytes | None: ...
    def make(
        self,
        parent: int,
        name: bytes,
        mode: int,
        umask: int,
        uid: int,
        gid: int,
        device: tuple[int, int] = (0, 0),
        target: bytes = b"",
    ) -> Attributes:
        """A new inode of the type that `mode` says; held like one that was looked up."""

    def link(self, ino: int, parent: int, name: bytes) -> Attributes: ...
    def unlink(self, parent: int, name: bytes) -> None: ...
    def rmdir(self, parent: int, name: bytes) -> None: ...
    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, exchange: bool, replace: bool
    ) -> None: ...
    def setattr(
        self,
        ino: int,
        mode: int | None = None,
        uid: int | None = None,
        gid: int | None = None,
        size: int | None = None,
        atime: int | None = None,
        mtime: int | None = None,
    ) -> Attributes: ...
    def getxattr(self, ino: int, name: bytes) -> bytes: ...
    def listxattr(self, ino: int) -> list[bytes]: ...
    def setxattr(self, ino: int, name: bytes, value: bytes, create: bool = False, replace: bool = False) -> None: ...
    def removexattr(self, ino: int, name: bytes) -> None: ...
    def opened(self, ino: int) -> None: ...
    def closed(self, ino: int) -> None: ...
    def read(self, ino: int, offset: int, length: int) -> bytes: ...
    def write(self, ino: int, offset: int, data: Buffer) -> int: ...
    def sync(self) -> None: ...
    @property
    def is_clean(self) -> bool: ...
    @property
    def event(self) -> int: ...
    def events(self, since: int, most: int) -> tuple[int, list[tuple[int, bytes]] | None]:
        """(last, changes): names that changed after `since`, at most so many; `last` is where to go on. None instead
        of them if they are not known any more."""

    def bell(self) -> ChangeBell: ...
    def nodes(self, frozen_only: bool = False) -> list[tuple[Any, ...]]: ...
    def freeze(self) -> tuple[int, int] | None:
        """End the open generation: where it ends in the journal, (stream, position); None if nothing has changed.
        EBUSY if there is a frozen one."""

    def share(self) -> tuple[int, int] | None:
        """The same, but a frozen one will do, if nothing was changed since: for a fork to stand on. Else EBUSY."""

    @property
    def frozen_end(self) -> tuple[int, int] | None:
        """Where the frozen generation ends in its workspace's journal, if there is one."""

    def put_content(
        self, ino: int, batch: Batch, flush: Callable[[Batch], Batch], path: bytes
    ) -> tuple[bytes, int, bool]: ...
    def retire(
        self,
        files: Sequence[tuple[int, bytes | None]],
        dirs: Sequence[tuple[int, tuple[Any, ...]]],
        links: bytes | None,
    ) -> None:
        """The frozen generation is in the store, and the live row says so: stand on that."""

    def thaw(self) -> None:
        """The frozen generation could not be stored: it is open again."""

    def close_gate(self) -> None:
        """From now on what would change something is refused with EAGAIN, until the gate is open again."""

    def open_gate(self) -> None: ...
    def wait_for_gate(self) -> None:
        """Returns once the gate is open."""

    def take_numbers(self, count: int) -> int:
        """The first of so many numbers of inodes that nobody else is given."""

    def fail(self) -> None:
        """What the row of the workspace says is not what is here: EROFS until it is opened again."""

    def end(self) -> None:
        """The workspace is being removed: what would change something is refused with ENOENT."""

    def go_on(self) -> None: ...
    @property
    def open_files(self) -> bool: ...
    @property
    def is_held(self) -> bool: ...
    def contents_held(self, numbers: Sequence[int]) -> list[bytes]:
        """The stored contents that only inodes without a name show, and those of `numbers`, which will have none."""

    def rebase(
        self,
        root: tuple[bytes | None, bytes | None, bytes | None, int],
        mode: int,
        ext: bytes | None,
        links: bytes | None,
        time: tuple[int, int, int],
        owner: tuple[int, int],
        dirs: Sequence[tuple[int, tuple[Any, ...]]],
        changes: Sequence[tuple[int, bytes, int | None, int | None, bool]],
        lost: Sequence[int],
    ) -> tuple[list[tuple[int, bytes]], list[tuple[int, bool]]]:
        """Stand on another state, whose row is written: what the kernel must drop. The gate must be closed and nothing
        uncommitted, or it is EBUSY."""

    def figures(self) -> tuple[int, int, int, int]:
        """(inodes held, inodes of the generations, inodes without a name, blocks in use)."""

class ChangeBell:
    """A descriptor that becomes readable when something changes."""

    def fileno(self) -> int: ...
    def arm(self, since: int) -> bool:
        """Whether it rings at the next change; False if there is one after `since` already."""
