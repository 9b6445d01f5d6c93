"""The commands that were executed, as the store has them: which there are, and what they have said."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from fusecas import looking
from fusecas.errors import AmbiguousPrefix, RefNotFound
from fusecas.store import heads
from fusecas.store.ids import Kind
from fusecas.store.kinds import Action, Layer, command_of

if TYPE_CHECKING:
    from fusecas.store.ids import LayerId
    from fusecas.store.run_rows import Record
    from fusecas.store.snapshot import Snapshot

DIGITS = re.compile("[0-9a-f]{6,32}")


class Wanted(NamedTuple):
    """Which ones: that ended so; whose command has this text in it; that have said this."""

    exit: int | None = None
    grep: str | None = None
    said: bytes | None = None


def records(snapshot: "Snapshot", wanted: Wanted = Wanted()) -> "Iterator[tuple[bytes, Record]]":
    """Newest first."""
    for number, record in snapshot.records_back():
        if (
            wanted.exit in (None, record.exit)
            and (wanted.grep is None or wanted.grep in command(record))
            and (wanted.said is None or _has_said(snapshot, record, wanted.said))
        ):
            yield number, record


def command(record: "Record") -> str:
    return command_of(Action.decode(record.action).program)


def _has_said(snapshot: "Snapshot", record: "Record", text: bytes) -> bool:
    for content in (record.stdout, record.stderr):
        end = b""
        for data in () if content is None else snapshot.iter_content(content):
            if text in (both := end + data):
                return True
            end = both[-len(text) :]
    return False


def record_of(
    snapshot: "Snapshot", text: str, workspace: str = heads.DEFAULT, warn: looking.Warn = looking.nobody
) -> "tuple[bytes, Record]":
    """Of a run's number or its first digits; else of the run that made the layer that a ref names, or whose result was
    put in place as that layer. RefNotFound."""
    if DIGITS.fullmatch(text):
        found = [each for each in snapshot.records_back() if each[0].hex().startswith(text)]
        if len(found) > 1:
            raise AmbiguousPrefix.among(text, [number.hex() for number, _ in found[:20]])
        if found:
            return found[0]
    layer = looking.resolve_layer(snapshot, text, workspace, warn)
    for number, record in snapshot.records_back():
        if record.layer == layer:
            return number, record
    origin = _origin(snapshot, layer)
    if origin is not None:
        return origin
    raise RefNotFound(f"no run has made layer {layer.hex()[:12]}", hint="fusecas runs lists them")


def _origin(snapshot: "Snapshot", layer: "LayerId") -> "tuple[bytes, Record] | None":
    """The run that did what a hit has put in place: the newest one of the same program that came to the same state."""
    core = Layer.decode(snapshot.read_node(layer, Kind.LAYER))
    for number, record in snapshot.records_back():
        if record.state == core.state and record.exit == core.exit:
            action = Action.decode(record.action)
            if (action.program, action.cwd) == (core.program, core.cwd):
                return number, record
    return None


def said_by(snapshot: "Snapshot", record: "Record") -> tuple[bytes, bytes]:
    """Its stdout and stderr."""
    stdout, stderr = (
        b"" if content is None else b"".join(snapshot.iter_content(content))
        for content in (record.stdout, record.stderr)
    )
    return stdout, stderr
