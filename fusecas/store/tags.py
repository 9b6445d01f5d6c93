"""Tags: names for layers."""

from collections.abc import Iterator, Sequence

from fusecas.errors import AlreadyExists, RefNotFound
from fusecas.store.ids import LayerId
from fusecas.store.names import check_name
from fusecas.store.rows import Move, Operation
from fusecas.store.snapshot import Snapshot
from fusecas.store.transaction import Transaction, short

NAMESPACE = "tags/"


def set_tag(
    transaction: Transaction,
    name: str,
    layer: LayerId,
    argv: Sequence[bytes],
    actor: str,
    *,
    force: bool = False,
) -> Operation | None:
    """Name a layer. Moving a tag that is there needs `force`; None if it names this layer already."""
    ref = NAMESPACE + check_name(name)
    now = transaction.get_ref(ref)
    if now is not None and now.target == layer:
        return None
    if now is not None and not force:
        raise AlreadyExists(f"tag {name} is there already, on {short(now.target)}", hint="-f moves it")
    return transaction.operate("tag", argv, actor, [Move(ref, None if now is None else now.target, layer)])


def delete_tag(transaction: Transaction, name: str, argv: Sequence[bytes], actor: str) -> Operation:
    ref = NAMESPACE + check_name(name)
    now = transaction.get_ref(ref)
    if now is None:
        known = [each for each, _ in list_tags(transaction)]
        raise RefNotFound(f"no tag {name}", details={"name": name, "known": known})
    return transaction.operate("tag", argv, actor, [Move(ref, now.target, None)])


def list_tags(reader: Snapshot) -> Iterator[tuple[str, LayerId]]:
    for name, row in reader.list_refs(NAMESPACE):
        yield name.removeprefix(NAMESPACE), LayerId(row.target)
