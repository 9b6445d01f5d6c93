"""Objects by their ids: put, get, has, hash, abbrev, closure, refs."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from fusecas.cli import output
from fusecas.cli.common import chosen, list_options, opened, reading, resolve_object, verb, writing
from fusecas.cli.progress import progress
from fusecas.errors import ObjectNotFound, RefNotFound, UsageError

if TYPE_CHECKING:
    from fusecas.cli.call import Call
    from fusecas.store.snapshot import Snapshot
    from fusecas.store.store import Store

READ_SIZE = 1 << 20


@contextmanager
def opened_file(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    with Path(path).open("rb") as file:
        yield file


class Counted:
    """A file that says how much of it was read."""

    def __init__(self, file: BinaryIO, tell: Callable[[int], None]) -> None:
        self._file = file
        self._tell = tell
        self._size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._file.read(size)
        self._size += len(data)
        self._tell(self._size)
        return data


@verb("put")
@click.argument("file", metavar="FILE|-")
def put(file: str, call: "Call", repo: Path | None) -> Any:
    """Store the bytes of FILE (-: of stdin) and print their id.

    Nothing refers to them yet: gc leaves them alone for its --min-age.

    Example: tar c src | fusecas put -
    """
    with opened_file(file) as source, writing(repo) as repository, progress("storing", output.size_text) as tell:
        with repository.store.session() as session:
            stream: Any = source if tell is None else Counted(source, tell)
            content = session.put_stream(stream)
            session.keep()
            new = session.new_objects > 0
        with repository.store.read() as snapshot:
            size = snapshot.content_size(content)
    if not call.as_json:
        print(content.hex())
    return {"hash": content.hex(), "size": size, "new": new}


@verb("get")
@click.argument("hash_text", metavar="HASH")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), help="Into a file, whole or not at all.")
@click.option("--raw", is_flag=True, help="A node's CBOR instead of JSON.")
def get(hash_text: str, target: Path | None, raw: bool, call: "Call", repo: Path | None) -> Any:
    """An object's bytes; a node is shown as JSON.

    HASH: a hash, a prefix of at least 4 digits, or a ref.

    Example: fusecas get 8e4c7c1b99db -o a.txt
    """
    with opened(repo) as repository:
        with repository.store.read() as snapshot:
            object_id = resolve_object(snapshot, hash_text)
        parts, shown = _object_parts(repository.store, object_id, raw)
        if call.as_json and target is None:
            data = b"".join(parts)
            fields = {"node": shown} if shown is not None else output.path_fields(data, "content")
            return {"hash": object_id.hex(), **fields}
        if target is None:
            for part in parts:
                output.write_bytes(part)
            return None
        _write_file(target, parts)
    return {"hash": object_id.hex(), "file": str(target)}


def _object_parts(store: "Store", object_id: bytes, raw: bool) -> tuple[Iterator[bytes], Any]:
    from fusecas import _native
    from fusecas.store.contents import content_parts
    from fusecas.store.ids import EMPTY_CONTENT, Kind

    with store.read() as snapshot:
        row = None if object_id == EMPTY_CONTENT else snapshot.needed_row(object_id)
        is_content = row is None or row.kind in (Kind.CHUNK, Kind.RECIPE)
        data = b"" if is_content else snapshot.read_node(object_id)
    if row is None or is_content:
        return content_parts(store, object_id), None
    if raw:
        return iter([data]), None
    import json

    node = {"kind": kind_name(row.kind), "value": readable(_native.cbor_decode(data))}
    return iter([json.dumps(node, indent=2).encode() + b"\n"]), node


def readable(value: Any) -> Any:
    """A node's value as JSON: references and byte strings become objects of one key."""
    from fusecas import _native

    match value:
        case _native.Ref():
            return {"ref": value.id.hex()}
        case float() if not isfinite(value):
            return {"float": str(value)}
        case bytes():
            try:
                return {"bytes": value.decode()} if value.decode().isprintable() else {"hex": value.hex()}
            except UnicodeDecodeError:
                return {"hex": value.hex()}
        case list():
            return [readable(each) for each in value]
        case dict():
            return {key: readable(each) for key, each in value.items()}
    return value


def _write_file(target: Path, parts: Iterator[bytes]) -> None:
    """A file appears whole or not at all; a pipe or device that is there is written to."""
    if target.is_dir():
        raise UsageError(f"{target} is a folder", hint="-o takes a file's name")
    if target.exists() and not target.is_file():
        with target.open("wb") as sink:
            sink.writelines(parts)
    else:
        _write_whole(target, parts)


def _write_whole(target: Path, parts: Iterator[bytes]) -> None:
    """Under another name first, so that a reader never sees a part of it."""
    import tempfile

    descriptor, new = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(new).chmod(0o666 & ~mask)
        Path(new).replace(target)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise


@verb("has")
@click.argument("hash_text", metavar="HASH")
def has(hash_text: str, call: "Call", repo: Path | None) -> Any:
    """Whether an object is there: exit 0 if it is, 1 if not.

    Example: fusecas has $(b3sum --no-names FILE) || fusecas put FILE
    """
    with reading(repo) as snapshot:
        try:
            found: bytes | None = resolve_object(snapshot, hash_text)
        except (ObjectNotFound, RefNotFound):
            found = None
    if not call.as_json:
        print("no" if found is None else "yes")
    return {"has": found is not None, "hash": output.hex_or_none(found)}, int(found is None)


@verb("hash")
@click.argument("file", metavar="FILE|-")
def hash_file(file: str, call: "Call", repo: Path | None) -> Any:
    """The id that FILE's bytes have: what `b3sum FILE` prints. Stores nothing; needs no repository.

    Example: fusecas hash a.txt
    """
    from fusecas import _native

    writer, size = _native.ContentWriter(), 0
    with opened_file(file) as source, progress("hashing", output.size_text) as tell:
        while data := source.read(READ_SIZE):
            writer.feed(_native.Batch(), data)
            size += len(data)
            if tell is not None:
                tell(size)
    content, _ = writer.finish(_native.Batch())
    if not call.as_json:
        print(content.hex())
    return {"hash": content.hex(), "size": size}


@verb("abbrev")
@click.argument("hash_text", metavar="HASH")
@click.option("--min", "minimum", type=click.IntRange(4, 64), default=4, help="At least so many digits.")
def abbrev(hash_text: str, minimum: int, call: "Call", repo: Path | None) -> Any:
    """The shortest prefix that names this object and no other.

    Example: fusecas abbrev @
    """
    with reading(repo) as snapshot:
        object_id = resolve_object(snapshot, hash_text)
        found = snapshot.abbreviate(object_id, minimum)
    if not call.as_json:
        print(found)
    return {"hash": object_id.hex(), "abbrev": found}


def kind_name(kind: int) -> str:
    from fusecas.store.ids import Kind

    return Kind(kind).name.lower() if kind in set(Kind) else f"kind {kind}"


def kind_of(snapshot: "Snapshot", object_id: bytes) -> str:
    """Of the empty content too, which has no row."""
    from fusecas.store.ids import EMPTY_CONTENT, Kind

    return kind_name(Kind.CHUNK if object_id == EMPTY_CONTENT else snapshot.needed_row(object_id).kind)


def _print_ids(listed: Sequence[tuple[bytes, str]], call: "Call") -> Any:
    if not call.as_json:
        output.print_table([each.hex(), output.paint(kind, "dim")] for each, kind in listed)
    return [{"hash": each.hex(), "kind": kind} for each, kind in listed]


KEYS: dict[str, Any] = {"hash": lambda each: each[0], "kind": lambda each: each[1]}


@verb("closure")
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@list_options(*KEYS)
def closure(refs: tuple[str, ...], call: "Call", repo: Path | None, **choice: Any) -> Any:
    """Every object that REF needs, itself included, each once.

    Example: fusecas closure v1.0 --sort kind
    """
    from fusecas.store.walk import walk

    with reading(repo) as snapshot:
        roots = [resolve_object(snapshot, each) for each in refs]
        listed = chosen(((each, kind_name(kind)) for each, kind in walk(snapshot, roots)), KEYS, **choice)
    return _print_ids(listed, call)


@verb("refs")
@click.argument("hash_text", metavar="HASH")
@list_options(*KEYS)
def refs_verb(hash_text: str, call: "Call", repo: Path | None, **choice: Any) -> Any:
    """What an object refers to.

    Example: fusecas refs @
    """
    with reading(repo) as snapshot:
        found = snapshot.refs_of(resolve_object(snapshot, hash_text))
        listed = chosen(((each, kind_of(snapshot, each)) for each in found), KEYS, **choice)
    return _print_ids(listed, call)


COMMANDS = {
    "put": put,
    "get": get,
    "has": has,
    "hash": hash_file,
    "abbrev": abbrev,
    "closure": closure,
    "refs": refs_verb,
}
