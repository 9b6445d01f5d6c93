"""What the tests of the store share: things to put, and a gc that stops half-way."""

import random
import time
from collections.abc import Callable, Iterable
from typing import Protocol

from fusecas import _native
from fusecas._native import Ref
from fusecas.store import gc, packs, prolly
from fusecas.store.ids import ContentId, Kind, LayerId, ObjectId, StateId
from fusecas.store.kinds import Layer, State
from fusecas.store.store import Store
from fusecas.store.tables import u64
from fusecas.store.transaction import Expect, Transaction

ANYTHING = Expect.ANYTHING
UNKNOWN = 20
AN_HOUR = 3600 * 1_000_000_000


class Putter(Protocol):
    """A transaction or a session."""

    def put_node(self, kind: Kind, data: bytes) -> ObjectId: ...

    def put_content(self, data: bytes) -> ContentId: ...


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that can't be compressed."""
    return random.Random(seed).randbytes(size)


def node_over(putter: Putter, targets: Iterable[ObjectId]) -> ObjectId:
    """A node that refers to these."""
    node = prolly.build(Kind.MAP, ((u64(i), Ref(each)) for i, each in enumerate(targets)), putter.put_node)
    assert node is not None
    return node


def layer_over(putter: Putter, content: bytes, parents: tuple[LayerId, ...] = ()) -> LayerId:
    """A layer whose state has one file."""
    entries = [(b"file", 1, 0o644, putter.put_content(content), len(content), 0, None)]
    tree = prolly.build(Kind.TREE, entries, putter.put_node)
    state = StateId(putter.put_node(Kind.STATE, State(tree=tree, mode=0o755, links=None).encode()))  # type: ignore[arg-type]
    layer = Layer(parents=parents, state=state, message=content[:4].hex())
    return LayerId(putter.put_node(Kind.LAYER, layer.encode()))


def kept(store: Store, put: Callable[[Transaction], ObjectId], name: str = "pins/kept") -> ObjectId:
    """Put something, and a ref to it."""
    with store.write() as transaction:
        target = put(transaction)
        transaction.set_ref(name, target, ANYTHING)
    return target


def unreadable_node(store: Store) -> ObjectId:
    """An object of an unknown kind whose references can't be read."""
    data = b"\xff\xff not CBOR"
    node = ObjectId(_native.node_id(UNKNOWN, data))
    with store.environment.write() as kv:
        packs.append_objects(kv, [packs.NewObject(node, UNKNOWN, 0, len(data), memoryview(data))], 0)
    return node


def in_an_hour() -> int:
    return time.time_ns() + AN_HOUR


def collect(store: Store, **options: object) -> gc.GcReport:
    """A gc for which dead sessions are old."""
    return gc.collect(store, **{"now": in_an_hour, **options})  # type: ignore[arg-type]


def condemn(store: Store) -> None:
    """A gc that dies right after it has published its marks."""
    collection = gc._Collection(store, gc._policy(in_an_hour(), gc.GRACE, None), gc.MIN_AGE, in_an_hour)
    collection._end_sessions()
    collection._publish()
