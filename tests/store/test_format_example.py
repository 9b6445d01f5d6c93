"""The example of docs/format.md, derived from that page alone: with BLAKE3 and CBOR, but without fusecas.

The page lists each object of the example as `name | id | bytes`. What is derived here must be what stands there, and
what fusecas makes of the same folder must have the same ids.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cbor2
from blake3 import blake3

from fusecas.store.ids import Kind, LayerId, ObjectId, StateId
from fusecas.store.importer import import_tree
from fusecas.store.kinds import Layer
from fusecas.store.prolly import build
from fusecas.store.store import Store

PAGE = Path(__file__).parents[2] / "docs" / "format.md"
TREE, STATE, LINKS, TIMES, MAP, LAYER = 1, 2, 3, 4, 6, 8
CONTEXT = "fusecas 2026-11-24 "

HELLO, RUN, ZEROS = b"hello\n", b"#!/bin/sh\necho hello\n", bytes(70_000)
SECOND = 1_000_000_000


class Object(NamedTuple):
    id: bytes
    data: bytes


def ref(target: bytes) -> cbor2.CBORTag:
    return cbor2.CBORTag(202, target)


def node(kind: int, value: Any) -> Object:
    data = cbor2.dumps(value, canonical=True)
    hasher = blake3(derive_key_context=f"{CONTEXT}node {kind}")
    return Object(hasher.update(kind.to_bytes(2, "big") + data).digest(), data)


def recipe(content: bytes, value: Any) -> Object:
    data = cbor2.dumps(value, canonical=True)
    checksum = blake3(derive_key_context=CONTEXT + "recipe").update(content + data).digest()
    return Object(content, data + checksum)


def ends_node(level: int, key: bytes) -> bool:
    secret = blake3(derive_key_context=CONTEXT + "split").digest()
    return blake3(bytes([level]) + key, key=secret).digest()[0] & 63 == 0


def split(level: int, entries: Sequence[list[Any]]) -> list[list[list[Any]]]:
    nodes: list[list[list[Any]]] = [[]]
    for entry in entries:
        if nodes[-1] and (len(nodes[-1]) == 256 or ends_node(level, nodes[-1][-1][0])):
            nodes.append([])
        nodes[-1].append(entry)
    return nodes


def folder_example() -> dict[str, Object]:
    """The objects of the folder, by the names that the page gives them."""
    made = {name: Object(blake3(data).digest(), data) for name, data in (("hello.txt", HELLO), ("bin/run", RUN))}
    zeros = blake3(ZEROS).digest()
    made["zeros"] = recipe(zeros, [70_000, [70_000], None])
    run = [b"run", 1, 0o755, [ref(made["bin/run"].id), len(RUN)], {"O": [None, 7]}]
    made["tree of bin"] = node(TREE, [0, [run]])
    linked = {"L": True, "X": [[b"user.note", b"hi"]]}
    root = [
        [b"bin", 2, 0o755, [ref(made["tree of bin"].id), 1, len(RUN)]],
        [b"empty", 1, 0o600, None],
        [b"hello.txt", 1, 0o644, [ref(made["hello.txt"].id), len(HELLO)], linked],
        [b"latest", 3, 0o777, b"hello.txt"],
        [b"same.txt", 1, 0o644, [ref(made["hello.txt"].id), len(HELLO)], linked],
        [b"zeros", 1, 0o644, [ref(zeros), len(ZEROS)]],
    ]
    made["tree"] = node(TREE, [0, root])
    made["links"] = node(LINKS, [0, [[b"hello.txt", b"hello.txt"], [b"same.txt", b"hello.txt"]]])
    made["state"] = node(STATE, {"tree": ref(made["tree"].id), "mode": 0o755, "links": ref(made["links"].id)})
    made["times of bin"] = node(TIMES, [0, [[b"run", 2 * SECOND, None]]])
    times = [[b"", SECOND, None], [b"bin", 3 * SECOND, ref(made["times of bin"].id)]]
    times += [[each[0], 4 * SECOND, None] for each in root[1:]]
    made["times"] = node(TIMES, [0, times])
    layer = {
        "v": 1,
        "parents": [],
        "state": ref(made["state"].id),
        "planes": {},
        "program": {"verb": "import"},
        "cwd": None,
        "exit": None,
        "signal": None,
        "message": "first",
    }
    made["layer"] = node(LAYER, layer)
    return made


def map_example() -> dict[str, Object]:
    """A map of the keys 000 to 299, each with its number as value: more than one node."""
    entries = [[b"%03d" % number, number] for number in range(300)]
    leaves = split(0, entries)
    made = [node(MAP, [0, each]) for each in leaves]
    inner = [[each[-1][0], ref(leaf.id), len(each)] for each, leaf in zip(leaves, made, strict=True)]
    (top,) = split(1, inner)
    return {"first leaf of the map": made[0], "map": node(MAP, [1, top])}


def on_the_page() -> dict[str, tuple[str, str]]:
    rows = re.findall(r"^\| ([^|]+) \| `([0-9a-f]{64})` \| `([0-9a-f ]+|…)` \|$", PAGE.read_text(), re.MULTILINE)
    return {name.strip(): (object_id, data) for name, object_id, data in rows}


def test_the_page_says_what_follows_from_it() -> None:
    derived = {**folder_example(), **map_example()}
    page = on_the_page()
    assert page.keys() == derived.keys()
    for name, each in derived.items():
        object_id, data = page[name]
        assert object_id == each.id.hex(), name
        assert data == "…" or data.replace(" ", "") == each.data.hex(), name


def make_folder(place: Path) -> None:
    (place / "bin").mkdir(parents=True)
    for name, data, mode in (
        ("bin/run", RUN, 0o755),
        ("empty", b"", 0o600),
        ("hello.txt", HELLO, 0o644),
        ("zeros", ZEROS, 0o644),
    ):
        (place / name).write_bytes(data)
        (place / name).chmod(mode)
    os.chown(place / "bin/run", -1, 7)
    os.setxattr(place / "hello.txt", "user.note", b"hi")
    os.link(place / "hello.txt", place / "same.txt")
    os.symlink("hello.txt", place / "latest")
    times = {"bin/run": 2, "bin": 3, "empty": 4, "hello.txt": 4, "latest": 4, "zeros": 4, ".": 1}
    for name, seconds in times.items():
        os.utime(place / name, (seconds, seconds), follow_symlinks=False)
    for directory in (place, place / "bin"):
        directory.chmod(0o755)
        os.utime(directory, (times[os.path.relpath(directory, place)],) * 2)


def test_fusecas_makes_the_same_of_the_folder(tmp_path: Path) -> None:
    make_folder(tmp_path / "folder")
    example = folder_example()
    with Store.in_memory() as store, store.session() as session:
        found = import_tree(session, tmp_path / "folder")
        layer = Layer((), StateId(found.state), program={"verb": "import"}, message="first")
        made = LayerId(session.put_node(Kind.LAYER, layer.encode()))
        session.flush()
        assert found.state == example["state"].id
        assert found.times == example["times"].id
        assert made == example["layer"].id
        with session.read() as snapshot:
            for name, each in example.items():
                assert snapshot.read_object(ObjectId(each.id))[1] == each.data, name
        session.keep()


def test_fusecas_cuts_the_map_in_the_same_places() -> None:
    saved: dict[bytes, bytes] = {}

    def save(kind: Kind, data: bytes) -> ObjectId:
        made = node(kind, cbor2.loads(data))
        saved[made.id] = data
        return ObjectId(made.id)

    root = build(Kind.MAP, ((b"%03d" % number, number) for number in range(300)), save)
    example = map_example()
    assert root == example["map"].id
    assert all(saved[each.id] == each.data for each in example.values())
