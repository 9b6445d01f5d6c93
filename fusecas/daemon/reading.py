"""What the daemon says of layers, tags, differences, operations and runs: as the verbs of the same names do.

All of it can be read from the store without a daemon. This is for those who speak to a socket only.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, TypeVar

from fusecas import documents, looking, records
from fusecas.parameters import REQUIRED, checked
from fusecas.results import HistoryEntry
from fusecas.store import revisions, tags
from fusecas.store.diff import diff_states
from fusecas.store.ids import LayerId
from fusecas.store.rows import Operation
from fusecas.wire import path_fields
from fusecas.workspace.calls import WHERE, WHO, Parameters, deed_of, path_from_root
from fusecas.workspace.workspaces import Workspaces

T = TypeVar("T")
Read = Callable[[Workspaces, Parameters], Any]
SOME: dict[str, tuple[type, Any]] = {"limit": (int, None), "offset": (int, 0)}


def head(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    name = _name(workspaces, checked(parameters, **WHERE))
    with workspaces.repository.store.read() as snapshot:
        return documents.head(looking.head_of(snapshot, name))


def log(workspaces: Workspaces, parameters: Parameters) -> list[dict[str, Any]]:
    return _layers(workspaces, parameters, lambda found: found)


def history(workspaces: Workspaces, parameters: Parameters) -> list[dict[str, Any]]:
    return _layers(workspaces, parameters, lambda found: list(found)[::-1])


def _layers(
    workspaces: Workspaces,
    parameters: Parameters,
    in_order: Callable[[Iterator[HistoryEntry]], Iterable[HistoryEntry]],
) -> list[dict[str, Any]]:
    given = checked(parameters, ref=(str, "@"), runs=(bool, False), **SOME, **WHERE)
    name = _seen_from(workspaces, given, given["ref"])
    with workspaces.repository.store.read() as snapshot:
        found = looking.history_of(snapshot, given["ref"], name, runs=given["runs"])
        listed = _some(in_order(found), given)
        return [documents.entry(each, *looking.change_from_parent(snapshot, each)) for each in listed]


def inspect(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    given = checked(parameters, ref=(str, "@"), **WHERE)
    name = _seen_from(workspaces, given, given["ref"])
    with workspaces.repository.store.read() as snapshot:
        return documents.layer(looking.layer_info(snapshot, given["ref"], name))


def diff(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    given = checked(parameters, a=(str, "@"), b=(str, "@live"), paths=(list, []), renames=(bool, True), **WHERE)
    paths = [path_from_root(each) for each in given["paths"]]
    name = _seen_from(workspaces, given, given["a"], given["b"])
    with workspaces.repository.store.read() as snapshot:
        states = [revisions.resolve(snapshot, each, name).state for each in (given["a"], given["b"])]
        return documents.changes(diff_states(snapshot, *states, paths=paths, renames=given["renames"]))


def all_tags(workspaces: Workspaces, parameters: Parameters) -> dict[str, str]:
    checked(parameters)
    with workspaces.repository.store.read() as snapshot:
        return looking.tags_of(snapshot)


def tag(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    given = checked(
        parameters, name=(str, REQUIRED), ref=(str, "@"), force=(bool, False), delete=(bool, False), **WHERE, **WHO
    )
    name, who = given["name"], deed_of(given)
    workspace = _seen_from(workspaces, given, given["ref"])
    layer: LayerId | None = None
    done: Operation | None
    if not given["delete"]:
        with workspaces.repository.store.read() as snapshot:
            layer = looking.resolve_layer(snapshot, given["ref"], workspace)
    with workspaces.repository.store.write() as transaction:
        if layer is None:
            done = tags.delete_tag(transaction, name, *who)
        else:
            done = tags.set_tag(transaction, name, layer, *who, force=given["force"])
    return documents.tag(name, layer, done)


def op_log(workspaces: Workspaces, parameters: Parameters) -> list[dict[str, Any]]:
    given = checked(parameters, ref=(str, None), **SOME, **WHERE)
    ref = given["ref"]
    with workspaces.repository.store.read() as snapshot:
        found = (
            snapshot.operations_back()
            if ref is None
            else snapshot.ref_operations_back(looking.ref_name(snapshot, ref, _name(workspaces, given)))
        )
        return [documents.operation(each) for each in _some(found, given)]


def runs(workspaces: Workspaces, parameters: Parameters) -> list[dict[str, Any]]:
    given = checked(parameters, exit=(int, None), grep=(str, None), output=(str, None), **SOME)
    said = None if given["output"] is None else given["output"].encode()
    with workspaces.repository.store.read() as snapshot:
        found = records.records(snapshot, records.Wanted(given["exit"], given["grep"], said))
        return [documents.record(snapshot, *each) for each in _some(found, given)]


def logs(workspaces: Workspaces, parameters: Parameters) -> dict[str, Any]:
    given = checked(parameters, run=(str, REQUIRED), **WHERE)
    with workspaces.repository.store.read() as snapshot:
        number, record = records.record_of(snapshot, given["run"], _name(workspaces, given))
        stdout, stderr = records.said_by(snapshot, record)
    return {"run": number.hex(), **path_fields(stdout, "stdout"), **path_fields(stderr, "stderr")}


READS: dict[str, Read] = {
    "head": head,
    "log": log,
    "history": history,
    "inspect": inspect,
    "diff": diff,
    "tags": all_tags,
    "tag": tag,
    "op.log": op_log,
    "runs": runs,
    "logs": logs,
}


def _name(workspaces: Workspaces, given: Parameters) -> str:
    name: str = given["ws"] or workspaces.default
    return name


def _seen_from(workspaces: Workspaces, given: Parameters, *refs: str) -> str:
    """The workspace from which these are seen; what is uncommitted there is a state, if one of them asks for it."""
    name = _name(workspaces, given)
    if any(map(revisions.is_live, refs)):
        workspaces.get(name).seal()
    return name


def _some(found: Iterable[T], given: Parameters) -> list[T]:
    limit, offset = given["limit"], given["offset"]
    return list(islice(found, offset, None if limit is None else offset + limit))
