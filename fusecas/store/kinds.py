"""The built-in nodes that are maps: states, layers, workspaces, actions; and the entries of trees.

Frozen; `encode` gives canonical CBOR, `decode` accepts exactly what `encode` can give (docs/format.md).
"""

import os
import shlex
from collections.abc import Callable, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeVar

from fusecas import _native
from fusecas.errors import InvalidObject
from fusecas.store.ids import LayerId, LinksId, ObjectId, StateId, TreeId

Extension = Mapping[str, Any]
Program = Mapping[str, Any]
IdType = TypeVar("IdType")
NOTHING: Mapping[str, Any] = MappingProxyType({})


def command_of(program: Program) -> str:
    """A command as people write it: the shell's text, or the words quoted."""
    if "shell" in program:
        return os.fsdecode(program["shell"])
    return shlex.join(map(os.fsdecode, program["argv"]))


class EntryKind(IntEnum):
    FILE = 1
    DIRECTORY = 2
    SYMLINK = 3
    FIFO = 4
    SOCKET = 5
    CHARACTER = 6
    BLOCK = 7


class Entry(NamedTuple):
    """One name in a directory.

    `target`: the content id of a file, the tree id of a directory (None: empty), the text of a symbolic link.
    `size`, `count`: a file's size; a directory's bytes and entries below it; a device's major and minor number.
    """

    name: bytes
    kind: int
    mode: int
    target: bytes | None = None
    size: int = 0
    count: int = 0  # type: ignore[assignment]
    ext: Extension | None = None

    @property
    def is_directory(self) -> bool:
        return self.kind == EntryKind.DIRECTORY

    @property
    def is_file(self) -> bool:
        return self.kind == EntryKind.FILE

    @property
    def linked(self) -> bool:
        return bool(self.ext and self.ext.get("L"))

    @property
    def owner(self) -> tuple[int | None, int | None]:
        uid, gid = (self.ext or {}).get("O", (None, None))
        return uid, gid

    @property
    def xattrs(self) -> list[tuple[bytes, "bytes | _native.Ref"]]:
        return [(name, value) for name, value in (self.ext or {}).get("X", ())]


class State(NamedTuple):
    """All that a command can see in content. Its id is the state id."""

    tree: TreeId | None
    mode: int
    links: LinksId | None
    ext: Extension | None = None

    def encode(self) -> bytes:
        fields: dict[str, Any] = {"tree": to_ref(self.tree), "mode": self.mode, "links": to_ref(self.links)}
        if self.ext:
            _native.check_ext(self.ext)
            fields["ext"] = self.ext
        return _native.cbor_encode(fields)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        fields = Fields("state", data, {"tree", "mode", "links"}, optional=frozenset({"ext"}))
        ext = fields.get("ext", is_extension) if "ext" in fields.values else None
        mode = fields.get("mode", lambda value: is_unsigned(value) and value <= 0o7777)
        return cls(fields.ref("tree", TreeId), mode, fields.ref("links", LinksId), ext)

    def root(self, size: int, count: int) -> Entry:
        """The root as if it were a directory's entry."""
        return Entry(b"", EntryKind.DIRECTORY, self.mode, self.tree, size, count, self.ext)


class Plane(NamedTuple):
    """Data that travels with the files but is not files."""

    type: str
    root: ObjectId | None
    meta: Any = None


class Layer(NamedTuple):
    """A state with its history: what is equal wherever the same was done to the same."""

    parents: tuple[LayerId, ...]
    state: StateId
    planes: Mapping[str, Plane] = NOTHING
    program: Program | None = None
    cwd: bytes | None = None
    exit: int | None = None
    signal: int | None = None
    message: str | None = None

    def encode(self) -> bytes:
        return _native.cbor_encode(
            {
                "v": 1,
                "parents": [to_ref(each) for each in self.parents],
                "state": to_ref(self.state),
                "planes": encode_planes(self.planes),
                "program": None if self.program is None else dict(self.program),
                "cwd": self.cwd,
                "exit": self.exit,
                "signal": self.signal,
                "message": self.message,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        names = {"v", "parents", "state", "planes", "program", "cwd", "exit", "signal", "message"}
        fields = Fields("layer", data, names)
        fields.get("v", lambda value: value == 1)
        state = fields.ref("state", StateId)
        if state is None:
            raise InvalidObject("a layer without a state")
        return cls(
            parents=tuple(LayerId(ObjectId(each.id)) for each in fields.get("parents", is_refs)),
            state=state,
            planes=decode_planes(fields.get("planes", is_map)),
            program=fields.get("program", is_program),
            cwd=fields.get("cwd", lambda value: value is None or isinstance(value, bytes)),
            exit=fields.get("exit", is_number_or_none),
            signal=fields.get("signal", is_number_or_none),
            message=fields.get("message", is_text_or_none),
        )


class Workspace(NamedTuple):
    """What `heads/NAME` points to. `forked_from` is weak: it keeps nothing alive."""

    id: bytes
    layer: LayerId | None = None
    planes: Mapping[str, Plane] = NOTHING
    forked_from: tuple[bytes, bytes, int] | None = None
    status: str = "active"
    labels: Mapping[str, str] = NOTHING
    metadata: Any = None
    pin: str | None = None

    def encode(self) -> bytes:
        return _native.cbor_encode(
            {
                "v": 1,
                "id": self.id,
                "layer": to_ref(self.layer),
                "planes": encode_planes(self.planes),
                "forked_from": None if self.forked_from is None else list(self.forked_from),
                "status": self.status,
                "labels": dict(self.labels),
                "metadata": self.metadata,
                "pin": self.pin,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        names = {"v", "id", "layer", "planes", "forked_from", "status", "labels", "metadata", "pin"}
        fields = Fields("workspace", data, names)
        fields.get("v", lambda value: value == 1)
        forked_from = fields.get("forked_from", is_origin)
        return cls(
            id=fields.get("id", lambda value: isinstance(value, bytes) and len(value) == 16),
            layer=fields.ref("layer", LayerId),
            planes=decode_planes(fields.get("planes", is_map)),
            forked_from=None if forked_from is None else tuple(forked_from),
            status=fields.get("status", lambda value: isinstance(value, str)),
            labels=fields.get("labels", is_labels),
            metadata=fields.get("metadata", lambda value: True),
            pin=fields.get("pin", is_text_or_none),
        )


How = bool | int | bytes | None
"""Of a touched file: None, later than the one before it; True, at the same time; a number: at this time, in ns since
1970; bytes: not one file, but a digest over many."""
Touched = tuple[tuple[bytes, How], ...]


class Action(NamedTuple):
    """The key of a run: everything that its result may depend on."""

    kind: str
    program: Program
    cwd: bytes
    inputs: tuple[tuple[bytes, str, Any], ...]
    touched: Touched
    env: tuple[tuple[bytes, bytes], ...]
    stdin: Any
    tty: bool
    umask: int
    privileged: bool
    platform: Mapping[str, Any]
    domain: bytes

    def encode(self) -> bytes:
        return _native.cbor_encode(
            {
                "v": 1,
                "kind": self.kind,
                "program": dict(self.program),
                "cwd": self.cwd,
                "inputs": [list(each) for each in self.inputs],
                "touched": [list(each) for each in self.touched],
                "env": [list(each) for each in self.env],
                "stdin": self.stdin,
                "tty": self.tty,
                "umask": self.umask,
                "privileged": self.privileged,
                "platform": dict(self.platform),
                "domain": self.domain,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Self:
        names = {"v", *cls._fields}
        fields = Fields("action", data, names)
        fields.get("v", lambda value: value == 1)
        return cls(
            kind=fields.get("kind", lambda value: isinstance(value, str)),
            program=fields.get("program", lambda value: value is not None and is_program(value)),
            cwd=fields.get("cwd", lambda value: isinstance(value, bytes)),
            inputs=tuple((path, aspect, what) for path, aspect, what in fields.get("inputs", is_triples)),
            touched=tuple((path, how) for path, how in fields.get("touched", is_touched)),
            env=tuple((name, digest) for name, digest in fields.get("env", is_pairs)),
            stdin=fields.get("stdin", lambda value: True),
            tty=fields.get("tty", lambda value: isinstance(value, bool)),
            umask=fields.get("umask", is_unsigned),
            privileged=fields.get("privileged", lambda value: isinstance(value, bool)),
            platform=fields.get("platform", is_map),
            domain=fields.get("domain", lambda value: isinstance(value, bytes)),
        )


class Fields:
    """A decoded map whose keys are exactly the ones of its kind; hands out checked values."""

    def __init__(self, kind: str, data: bytes, names: set[str], optional: frozenset[str] = frozenset()) -> None:
        self.kind = kind
        try:
            values = _native.cbor_decode(data)
        except _native.FormatError as error:
            raise InvalidObject(f"not a {kind}: {error}") from error
        if not isinstance(values, dict) or not names <= values.keys() <= names | optional:
            raise InvalidObject(f"not a {kind}: other fields than {', '.join(sorted(names))}")
        self.values: dict[str, Any] = values

    def get(self, name: str, fits: Callable[[Any], bool]) -> Any:
        value = self.values[name]
        if not fits(value):
            raise InvalidObject(f"not a {self.kind}: {name} can't be {value!r}")
        return value

    def ref(self, name: str, to_id: Callable[[ObjectId], IdType]) -> IdType | None:
        value = self.get(name, lambda value: value is None or isinstance(value, _native.Ref))
        return None if value is None else to_id(ObjectId(value.id))


def to_ref(object_id: bytes | None) -> "_native.Ref | None":
    return None if object_id is None else _native.Ref(object_id)


def encode_planes(planes: Mapping[str, Plane]) -> dict[str, Any]:
    return {
        name: {"type": plane.type, "root": to_ref(plane.root), "meta": plane.meta} for name, plane in planes.items()
    }


def decode_planes(planes: Mapping[str, Any]) -> dict[str, Plane]:
    decoded = {}
    for name, plane in planes.items():
        if not isinstance(plane, dict) or plane.keys() != {"type", "root", "meta"}:
            raise InvalidObject(f"plane {name!r} is not {{type, root, meta}}")
        root = plane["root"]
        if not isinstance(plane["type"], str) or not (root is None or isinstance(root, _native.Ref)):
            raise InvalidObject(f"plane {name!r} has a type or root of another kind")
        decoded[name] = Plane(plane["type"], None if root is None else ObjectId(root.id), plane["meta"])
    return decoded


def is_unsigned(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number_or_none(value: object) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def is_text_or_none(value: object) -> bool:
    return value is None or isinstance(value, str)


def is_map(value: object) -> bool:
    return isinstance(value, dict)


def is_labels(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(each, str) for each in value.values())


def is_refs(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, _native.Ref) for each in value)


def is_byte_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, bytes) for each in value)


def is_pairs(value: object) -> bool:
    return isinstance(value, list) and all(is_byte_strings(each) and len(each) == 2 for each in value)


def is_touched(value: object) -> bool:
    """Each a path and how it stands to the one before, see How."""
    return isinstance(value, list) and all(
        isinstance(each, list)
        and len(each) == 2
        and isinstance(each[0], bytes)
        and (each[1] in (None, True) or type(each[1]) is int or isinstance(each[1], bytes))
        for each in value
    )


def is_triples(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(each, list) and len(each) == 3 and isinstance(each[0], bytes) and isinstance(each[1], str)
        for each in value
    )


def is_origin(value: object) -> bool:
    if value is None:
        return True
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(each, bytes) for each in value[:2])
        and is_unsigned(value[2])
    )


def is_extension(value: object) -> bool:
    try:
        _native.check_ext(value)
    except _native.FormatError:
        return False
    return True


def is_program(value: object) -> bool:
    """null, {shell: bytes}, {argv: [bytes…]}, {verb: text} or {task: ref}."""
    if value is None:
        return True
    if not isinstance(value, dict) or len(value) != 1:
        return False
    match value:
        case {"shell": bytes()} | {"verb": str()}:
            return True
        case {"argv": list(words)}:
            return bool(words) and is_byte_strings(words)
        case {"task": task}:
            return isinstance(task, _native.Ref)
    return False
