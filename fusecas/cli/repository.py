"""The repository as a whole: init, verify, gc, stats."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.common import FOLDER_PATH, duration, opened, resolve_object, verb, writing
from fusecas.cli.progress import objects, progress
from fusecas.cli.where import named_folder
from fusecas.errors import Damaged, UsageError

if TYPE_CHECKING:
    from fusecas.cli.call import Call
    from fusecas.store.stats import Amount
    from fusecas.store.verify import VerifyReport


@verb("init")
@click.argument("folder", type=FOLDER_PATH, required=False)
def init(folder: Path | None, call: "Call", repo: Path | None) -> Any:
    """Make a repository in FOLDER (default: here), with an empty workspace `main`.

    Exit 4 if there is one already.

    Example: fusecas init && fusecas import . -m "as it was"
    """
    from fusecas.store.finding import FOLDER
    from fusecas.store.repository import Repository

    if folder is not None and repo is not None:
        raise UsageError("FOLDER and --repo are two places for one repository", hint="give one of them")
    if folder is not None:
        place = folder / FOLDER
    else:
        named = named_folder(repo)
        place = Path(FOLDER) if named is None else named[0]
    argv, actor = call.deed()
    with Repository.create(place.absolute(), argv=argv, actor=actor) as repository:
        if not call.as_json:
            print(f"made {output.printable(str(repository.folder))}")
        return output.path_fields(os.fsencode(repository.folder), "repository")


@verb("verify")
@click.argument("refs", nargs=-1, metavar="[REF]...")
def verify(refs: tuple[str, ...], call: "Call", repo: Path | None) -> Any:
    """Read every stored object again (or what hangs from REF) and check it.

    Exit 5 if anything is damaged.

    Example: fusecas verify @
    """
    from fusecas.store.verify import verify as verify_store

    with opened(repo) as repository, progress("verifying", objects) as tell:
        roots = None
        if refs:
            with repository.store.read() as snapshot:
                roots = [resolve_object(snapshot, each) for each in refs]
        report = verify_store(repository.store, roots, tell)
    result: dict[str, Any] = {
        "ok": report.ok,
        "corrupted": [each.hex() for each in report.corrupted],
        "invalid": [each.hex() for each in report.invalid],
        "missing": [each.hex() for each in report.missing],
        "problems": list(report.problems),
    }
    if not call.as_json:
        _print_findings(report)
    if not report.clean:
        number = sum(len(result[each]) for each in ("corrupted", "invalid", "missing", "problems"))
        raise Damaged(f"verification found {output.count(number, 'problem')}", details=result)
    return result


def _print_findings(report: "VerifyReport") -> None:
    fine = "1 object is as it should be" if report.ok == 1 else f"{report.ok} objects are as they should be"
    print(fine)
    for what, ids in (("corrupted", report.corrupted), ("invalid", report.invalid), ("missing", report.missing)):
        for each in ids:
            print(f"{output.paint(what, 'red')} {each.hex()}")
    for problem in report.problems:
        print(f"{output.paint('problem', 'red')} {output.printable(problem)}")


@verb("gc")
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@click.option("--min-age", default="60", metavar="TIME", help="Leave alone what a writer put so recently (60 s).")
@click.option("--expire", metavar="TIME", help="Also remove layers that no name has reached for so long (never).")
def gc(dry_run: bool, min_age: str, expire: str | None, call: "Call", repo: Path | None) -> Any:
    """Remove objects that nothing needs; their space is used again.

    What a tag, a workspace or an operation that can still be undone reaches stays: operations of the last 30 days, or
    of as long as --expire says. Times: 90 (seconds), 10m, 2h, 3d.

    Example: fusecas gc --dry-run --expire 30d
    """
    from dataclasses import asdict

    from fusecas.store.gc import collect

    young, old = duration(min_age), None if expire is None else duration(expire)
    with writing(repo) as repository, progress("collecting", str):
        report = collect(repository.store, min_age=young, dry_run=dry_run, expire=old)
    if not call.as_json:
        would = "would remove" if dry_run else "removed"
        removed = f"{output.count(report.deleted, 'object')}, {output.size_text(report.bytes)}"
        print(f"{would} {removed}; {report.retained} stay")
        if report.skipped_young:
            print(f"{report.skipped_young} of them only because a writer put them recently (--min-age)")
        if report.partial:
            print(f"{output.count(report.partial, 'pack')} {'to rewrite' if dry_run else 'rewritten'}")
    return {**asdict(report), "dry_run": dry_run}


@verb("stats")
def stats(call: "Call", repo: Path | None) -> Any:
    """Objects by kind, what they take, and the size of the store's file.

    Example: fusecas stats --json
    """
    from fusecas.store.stats import measure

    with opened(repo) as repository:
        found = measure(repository.store, repository.folder)
    kinds = {
        kind: {"objects": each.objects, "size": each.size, "stored": each.stored} for kind, each in found.kinds.items()
    }
    if not call.as_json:
        rows = [["kind", "objects", "size", "stored", "ratio"]]
        for kind, each in [*found.kinds.items(), ("all", found.total)]:
            sizes = [output.size_text(each.size), output.size_text(each.stored)]
            rows.append([kind, str(each.objects), *sizes, "-" if not each.stored else f"{_ratio(each):.2f}"])
        output.print_table(rows, right=(1, 2, 3, 4))
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
        "ratio": _ratio(found.total),
        "layers": found.layers,
        "refs": found.refs,
        "operations": found.operations,
        "file_size": found.file_size,
        "free": found.free,
    }


def _ratio(amount: "Amount") -> float | None:
    """How many bytes one stored byte stands for."""
    return round(amount.size / amount.stored, 4) if amount.stored else None


COMMANDS = {"init": init, "verify": verify, "gc": gc, "stats": stats}
