"""Objects by their ids: put, get, has, hash, abbrev, closure, refs."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from fusecas.cli import output
from fusecas.cli.common import chosen, hold_back_stop, list_options, opened, reading, resolve_object, verb
from fusecas.errors import NotFound, PathNotFound, PermissionProblem

if TYPE_CHECKING:
    from fusecas.store.snapshot import Snapshot

READ_SIZE = 1 << 20


@contextmanager
def opened_file(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(path).open("rb") as file:
            yield file
    except (FileNotFoundError, IsADirectoryError) as error:
        raise PathNotFound(f"{path}: {error.strerror}") from error
    except PermissionError as error:
        raise PermissionProblem(f"{path}: {error.strerror}") from error


@verb("put")
@click.argument("file", metavar="FILE|-")
def put(file: str, as_json: bool, repo: Path | None) -> Any:
    """Store the bytes of FILE (-: of stdin) and print their id.

    Nothing refers to them yet: gc leaves them alone for its --min-age.
    """
    with opened_file(file) as source, opened(repo) as repository:
        hold_back_stop(repository)
        with repository.store.session() as session:
            content = session.put_stream(source)
            session.keep()
            new = session.new_objects > 0
        with repository.store.read() as snapshot:
            size = snapshot.content_size(content)
    if not as_json:
        print(content.hex())
    return {"hash": content.hex(), "size": size, "new": new}


@verb("get")
@click.argument("hash_text", metavar="HASH")
@click.option("-o", "--output", "target", type=click.Path(path_type=Path), help="Into a file, whole or not at all.")
@click.option("--raw", is_flag=True, help="A node's CBOR instead of JSON.")
def get(hash_text: str, target: Path | None, raw: bool, as_json: bool, repo: Path | None) -> Any:
    """An object's bytes; a node is shown as JSON."""
    with reading(repo) as snapshot:
        object_id = resolve_object(snapshot, hash_text)
        parts, shown = _object_parts(snapshot, object_id, raw)
        if as_json and target is None:
            data = b"".join(parts)
            fields = {"node": shown} if shown is not None else output.path_fields(data, "content")
            return {"hash": object_id.hex(), **fields}
        if target is None:
            for part in parts:
                output.write_bytes(part)
            return None
        _write_whole(target, parts)
    return {"hash": object_id.hex(), "file": str(target)}


def _object_parts(snapshot: "Snapshot", object_id: bytes, raw: bool) -> tuple[Iterator[bytes], Any]:
    from fusecas import _native
    from fusecas.store.ids import EMPTY_CONTENT, Kind

    row = None if object_id == EMPTY_CONTENT else snapshot.needed_row(object_id)
    if row is None or row.kind in (Kind.CHUNK, Kind.RECIPE):
        return snapshot.iter_content(object_id), None
    data = snapshot.read_node(object_id)
    if raw:
        return iter([data]), None
    import json

    node = {"kind": Kind(row.kind).name.lower(), "value": readable(_native.cbor_decode(data))}
    return iter([json.dumps(node, indent=2).encode() + b"\n"]), node


def readable(value: Any) -> Any:
    """A node's value as JSON: references and byte strings become objects of one key."""
    from fusecas import _native

    match value:
        case _native.Ref():
            return {"ref": value.id.hex()}
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


def _write_whole(target: Path, parts: Iterator[bytes]) -> None:
    """Under another name first, so that a reader never sees a part of it."""
    import tempfile

    try:
        descriptor, new = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except OSError as error:
        raise PathNotFound(f"{target.parent}: {error.strerror}") from error
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
def has(hash_text: str, as_json: bool, repo: Path | None) -> Any:
    """Whether an object is there: exit 0 if it is, 1 if not."""
    with reading(repo) as snapshot:
        try:
            found: bytes | None = resolve_object(snapshot, hash_text)
        except NotFound:
            found = None
    if not as_json:
        print("no" if found is None else "yes")
    return {"has": found is not None, "hash": output.hex_or_none(found)}, int(found is None)


@verb("hash")
@click.argument("file", metavar="FILE|-")
def hash_file(file: str, as_json: bool, repo: Path | None) -> Any:
    """The id that FILE's bytes have: what `b3sum FILE` prints. Stores nothing; needs no repository."""
    from fusecas import _native

    writer, size = _native.ContentWriter(), 0
    with opened_file(file) as source:
        while data := source.read(READ_SIZE):
            writer.feed(_native.Batch(), data)
            size += len(data)
    content, _ = writer.finish(_native.Batch())
    if not as_json:
        print(content.hex())
    return {"hash": content.hex(), "size": size}


@verb("abbrev")
@click.argument("hash_text", metavar="HASH")
@click.option("--min", "minimum", type=click.IntRange(4, 64), default=4, help="At least so many digits.")
def abbrev(hash_text: str, minimum: int, as_json: bool, repo: Path | None) -> Any:
    """The shortest prefix that names this object and no other."""
    with reading(repo) as snapshot:
        object_id = resolve_object(snapshot, hash_text)
        found = snapshot.abbreviate(object_id, minimum)
    if not as_json:
        print(found)
    return {"hash": object_id.hex(), "abbrev": found}


def _kinds(snapshot: "Snapshot", ids: "Iterator[bytes]") -> Iterator[tuple[bytes, str]]:
    from fusecas.store.ids import Kind

    for each in ids:
        row = snapshot.row(each)
        known = row is not None and row.kind in set(Kind)
        yield each, Kind(row.kind).name.lower() if row is not None and known else "chunk" if row is None else "unknown"


def _print_ids(listed: list[tuple[bytes, str]], as_json: bool) -> Any:
    if not as_json:
        output.print_table([each.hex(), output.paint(kind, "dim")] for each, kind in listed)
    return [{"hash": each.hex(), "kind": kind} for each, kind in listed]


KEYS: dict[str, Any] = {"hash": lambda each: each[0], "kind": lambda each: each[1]}


@verb("closure")
@click.argument("refs", nargs=-1, required=True, metavar="REF...")
@list_options(*KEYS)
def closure(refs: tuple[str, ...], as_json: bool, repo: Path | None, **choice: Any) -> Any:
    """Every object that REF needs, itself included, each once."""
    from fusecas.store.walk import closure as close

    with reading(repo) as snapshot:
        roots = [resolve_object(snapshot, each) for each in refs]
        listed = chosen(_kinds(snapshot, close(snapshot, roots)), KEYS, **choice)  # type: ignore[arg-type]
    return _print_ids(listed, as_json)


@verb("refs")
@click.argument("hash_text", metavar="HASH")
@list_options(*KEYS)
def refs_verb(hash_text: str, as_json: bool, repo: Path | None, **choice: Any) -> Any:
    """What an object refers to."""
    with reading(repo) as snapshot:
        found = snapshot.refs_of(resolve_object(snapshot, hash_text))
        listed = chosen(_kinds(snapshot, iter(found)), KEYS, **choice)
    return _print_ids(listed, as_json)


COMMANDS = {
    "put": put,
    "get": get,
    "has": has,
    "hash": hash_file,
    "abbrev": abbrev,
    "closure": closure,
    "refs": refs_verb,
}
