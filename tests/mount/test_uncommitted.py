"""What `fusecas status` says is uncommitted, wherever the overlay has it."""

import os

from tests.mount.conftest import Mounted
from tests.mount.test_checkout import committed


def test_what_is_uncommitted_is_told_whichever_generation_has_it(mounted: Mounted) -> None:
    """What was changed before a fork and after it, and once what they share has been stored."""
    work = mounted.work
    for name in ("as long", "gone", "mode", "attribute"):
        (work / name).write_text("one")
    committed(mounted, "first")
    (work / "as long").write_text("two")
    (work / "gone").unlink()
    (work / "mode").chmod(0o600)
    os.setxattr(work / "attribute", "user.x", b"y")
    expected = {"as long": "M", "gone": "D", "mode": "m", "attribute": "m"}
    mounted.ok("fork", "other")
    assert mounted.changes() == expected
    (work / "made").write_text("made")
    (work / "as long").chmod(0o600)
    assert mounted.changes() == {**expected, "made": "A"}
    mounted.ok("commit", "--ws", "other")
    assert mounted.changes() == {**expected, "made": "A"}


def test_files_that_changed_places_are_uncommitted_though_nothing_was_written(mounted: Mounted) -> None:
    for name in ("a", "b", "c", "d"):
        (mounted.work / name).write_text(name)
    committed(mounted, "first")
    mounted.shell("mv a t; mv b a; mv t b; mv c d")
    assert mounted.changes() == {"a": "M", "b": "M", "c": "D", "d": "M"}
