"""What a repository says of its layers, as the API and the command line both tell it."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from fusecas.errors import RefNotFound
from fusecas.results import Diff, Head, HistoryEntry, LayerInfo, Renamed
from fusecas.store import heads, history, revisions, tags
from fusecas.store.ids import Kind, LayerId, ObjectId
from fusecas.store.kinds import Layer

if TYPE_CHECKING:
    from fusecas.store.diff import Change
    from fusecas.store.snapshot import Snapshot

Warn = Callable[[str], None]


def nobody(_message: str) -> None:
    pass


def history_of(
    snapshot: "Snapshot", ref: str, workspace: str = heads.DEFAULT, *, runs: bool = False, warn: Warn = nobody
) -> Iterator[HistoryEntry]:
    """The layers behind a ref, newest first; `runs`: without hand edits. Reads as many as are asked for."""
    layer = revisions.resolve(snapshot, ref, workspace, warn).layer
    names = names_of_layers(snapshot)
    for each in history.entries(snapshot, layer, workspace):
        if not runs or each.kind != "edits":
            yield _entry(each, names)


def layer_info(snapshot: "Snapshot", ref: str, workspace: str = heads.DEFAULT, *, warn: Warn = nobody) -> LayerInfo:
    """All about the layer that a ref names; RefNotFound if it names none."""
    from fusecas.store import trees

    layer = resolve_layer(snapshot, ref, workspace, warn)
    core = Layer.decode(snapshot.read_node(layer, Kind.LAYER))
    found = next(history.entries(snapshot, layer, workspace))
    entry = _entry(found, names_of_layers(snapshot))
    root = trees.root_entry(snapshot, found.state)
    size, changes = change_from_parent(snapshot, entry)
    return LayerInfo(
        **{each: getattr(entry, each) for each in HistoryEntry.__slots__},
        size=size,
        changes=changes,
        entries=root.count,
        bytes=root.size,
        signal=core.signal,
        cwd=None if core.cwd is None else os.fsdecode(core.cwd),
        planes=tuple(sorted(core.planes)),
    )


def head_of(snapshot: "Snapshot", workspace: str = heads.DEFAULT) -> Head:
    found = heads.read_head(snapshot, workspace)
    layer = found.workspace.layer
    kind, instruction = "empty", ""
    if layer is not None:
        kind, instruction = history.describe(Layer.decode(snapshot.read_node(layer, Kind.LAYER)))
    return Head(found.name, None if layer is None else layer.hex(), found.live.state.hex(), kind, instruction)


def tags_of(snapshot: "Snapshot") -> dict[str, str]:
    return {name: layer.hex() for name, layer in tags.list_tags(snapshot)}


def diff_of(
    snapshot: "Snapshot", a: str, b: str, workspace: str, *, paths: Sequence[bytes] = (), renames: bool = True
) -> Diff:
    """Of what is stored: `@live` is what was sealed last."""
    from fusecas.store.diff import diff_states, grouped

    states = [revisions.resolve(snapshot, each, workspace).state for each in (a, b)]
    groups = grouped(diff_states(snapshot, *states, paths=paths, renames=renames))
    renamed = tuple(Renamed(os.fsdecode(each.old_path or b""), os.fsdecode(each.path)) for each in groups.renamed)
    return Diff(_paths(groups.added), _paths(groups.modified), _paths(groups.deleted), renamed)


def _paths(changes: "Sequence[Change]") -> tuple[str, ...]:
    return tuple(os.fsdecode(each.path) for each in changes)


def resolve_layer(snapshot: "Snapshot", ref: str, workspace: str = heads.DEFAULT, warn: Warn = nobody) -> LayerId:
    layer = revisions.resolve(snapshot, ref, workspace, warn).layer
    if layer is None and ref.startswith("@live"):
        raise RefNotFound(f"{ref} is no layer: something is uncommitted", hint="fusecas commit makes one")
    if layer is None:
        raise RefNotFound(f"{ref} is no layer: there is none yet", hint="fusecas commit or import DIR makes one")
    return layer


def ref_name(snapshot: "Snapshot", text: str, workspace: str = heads.DEFAULT) -> str:
    """The full name of the ref that `text` names or once named: a tag, else a workspace (`@`: this one)."""
    name = workspace if text == "@" else text.removeprefix("ws:")
    spaces = (heads.NAMESPACE,) if text.startswith(("ws:", "@")) else (tags.NAMESPACE, heads.NAMESPACE)
    for space in spaces:
        if next(snapshot.ref_operations_back(space + name), None) is not None:
            return space + name
    known = revisions.known_names(snapshot)
    raise RefNotFound(f"no workspace or tag {name!r} has ever been here", details={"name": name, "known": known})


def names_of_layers(snapshot: "Snapshot") -> dict[bytes, tuple[str, ...]]:
    """The tags of each layer that has any."""
    names: dict[bytes, tuple[str, ...]] = {}
    for name, layer in tags.list_tags(snapshot):
        names[layer] = (*names.get(layer, ()), name)
    return names


def change_from_parent(snapshot: "Snapshot", entry: HistoryEntry) -> tuple[int, int]:
    """(bytes of changed content, changed paths) against the first parent."""
    from fusecas.store.diff import ChangeKind, diff_states
    from fusecas.store.ids import StateId

    before = heads.state_of(snapshot, None if entry.parent is None else LayerId(ObjectId(bytes.fromhex(entry.parent))))
    after = StateId(ObjectId(bytes.fromhex(entry.state)))
    size = count = 0
    for change in diff_states(snapshot, before, after, renames=False):
        count += 1
        content = change.kinds & {ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.TYPE}
        if content and change.new is not None and change.new.is_file:
            size += change.new.size
    return size, count


def _entry(entry: history.HistoryEntry, names: dict[bytes, tuple[str, ...]]) -> HistoryEntry:
    return HistoryEntry(
        hash=entry.layer.hex(),
        instruction=entry.instruction,
        kind=entry.kind,
        parents=tuple(each.hex() for each in entry.parents),
        state=entry.state.hex(),
        message=entry.message,
        exit_code=entry.exit,
        tags=names.get(entry.layer, ()),
        time_ns=entry.time,
    )
