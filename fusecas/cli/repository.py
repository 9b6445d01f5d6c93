"""The repository as a whole: init, verify, gc, stats."""

from pathlib import Path
from typing import Any

import click

from fusecas.cli import output
from fusecas.cli.common import deed, duration, hold_back_stop, opened, resolve_object, verb
from fusecas.errors import Damaged


@verb("init")
@click.argument("folder", type=click.Path(path_type=Path), default=".")
def init(folder: Path, as_json: bool, repo: Path | None) -> Any:
    """Make a repository in FOLDER (default: here), with an empty workspace `main`.

    Example: fusecas init && fusecas import . -m "as it was"
    """
    from fusecas.store.repository import FOLDER, Repository

    argv, actor = deed()
    place = repo if repo is not None else folder / FOLDER
    with Repository.create(place.absolute(), argv=argv, actor=actor) as repository:
        if not as_json:
            print(f"made {repository.folder}")
        return {"repository": str(repository.folder)}


@verb("verify")
@click.argument("refs", nargs=-1, metavar="[REF]...")
def verify(refs: tuple[str, ...], as_json: bool, repo: Path | None) -> Any:
    """Read every stored object again (or what hangs from REF) and check it.

    Exit 5 if anything is damaged.
    """
    from fusecas.store.verify import verify as verify_store

    with opened(repo) as repository:
        roots = None
        if refs:
            with repository.store.read() as snapshot:
                roots = [resolve_object(snapshot, each) for each in refs]
        report = verify_store(repository.store, roots)  # type: ignore[arg-type]
    result = {
        "ok": report.ok,
        "corrupted": [each.hex() for each in report.corrupted],
        "invalid": [each.hex() for each in report.invalid],
        "missing": [each.hex() for each in report.missing],
        "problems": list(report.problems),
    }
    if not as_json:
        print(f"{report.ok} objects are as they should be")
        for what in ("corrupted", "invalid", "missing"):
            for each in result[what]:  # type: ignore[attr-defined]
                print(f"{output.paint(what, 'red')} {each}")
        for problem in report.problems:
            print(f"{output.paint('problem', 'red')} {output.printable(problem)}")
    return result, 0 if report.clean else Damaged.exit_code


@verb("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--min-age", default="60", metavar="TIME", help="Leave alone what a writer put so recently (60 s).")
@click.option("--expire", metavar="TIME", help="Also remove layers that no name has reached for so long (never).")
def gc(dry_run: bool, min_age: str, expire: str | None, as_json: bool, repo: Path | None) -> Any:
    """Remove objects that nothing needs; their space is used again.

    What a tag, a workspace or an operation that can still be undone reaches stays. Times: 90 (seconds), 10m, 2h, 3d.
    """
    from dataclasses import asdict

    from fusecas.store.gc import collect

    with opened(repo) as repository:
        hold_back_stop(repository)
        report = collect(
            repository.store,
            min_age=duration(min_age),
            dry_run=dry_run,
            expire=None if expire is None else duration(expire),
        )
    if not as_json:
        would = "would remove" if dry_run else "removed"
        print(f"{would} {report.deleted} objects, {output.size_text(report.bytes)}; {report.retained} stay")
        if report.skipped_young:
            print(f"{report.skipped_young} of them only because a writer put them recently (--min-age)")
    return {**asdict(report), "dry_run": dry_run}


@verb("stats")
def stats(as_json: bool, repo: Path | None) -> Any:
    """Objects by kind, what they take, and the size of the store's file."""
    from fusecas.store.stats import measure

    with opened(repo) as repository:
        found = measure(repository.store, repository.folder)
    kinds = {
        kind: {"objects": each.objects, "size": each.size, "stored": each.stored} for kind, each in found.kinds.items()
    }
    if not as_json:
        rows = [["kind", "objects", "size", "stored"]]
        for kind, each in [*found.kinds.items(), ("all", found.total)]:
            rows.append([kind, str(each.objects), output.size_text(each.size), output.size_text(each.stored)])
        output.print_table(rows, right=(1, 2, 3))
        print()
        output.print_table(
            [
                ["layers", str(found.layers)],
                ["refs", str(found.refs)],
                ["operations", str(found.operations)],
                ["file", output.size_text(found.file_size)],
                ["free in it", output.size_text(found.free)],
            ],
            right=(1,),
        )
    return {
        "kinds": kinds,
        "objects": found.total.objects,
        "size": found.total.size,
        "stored": found.total.stored,
        "layers": found.layers,
        "refs": found.refs,
        "operations": found.operations,
        "file_size": found.file_size,
        "free": found.free,
    }


COMMANDS = {"init": init, "verify": verify, "gc": gc, "stats": stats}
