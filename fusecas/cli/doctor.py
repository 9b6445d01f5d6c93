"""What is missing on this machine, and how to get it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fusecas.cli import output
from fusecas.cli.common import verb
from fusecas.cli.where import named_folder, repository_folder
from fusecas.errors import EnvironmentProblem, RepositoryNotFound

if TYPE_CHECKING:
    from fusecas.cli.call import Call

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@verb("doctor")
def doctor(call: "Call", repo: Path | None) -> Any:
    """Look at what a mount needs, on this machine and in the repository, and say how to get what is missing.

    Exit 6 if something is missing; warnings are no failure. Works without a repository, too.

    Example: fusecas doctor
    """
    from fusecas.doctor import PROBLEM, examine

    folder = _folder(repo)
    checks = []
    for check in examine(folder):
        checks.append(check)
        if not call.as_json:
            outcome = output.paint(f"{check.outcome:<8}", COLOURS[check.outcome])
            print(f"{outcome} {check.name}: {output.printable(check.said)}", flush=True)
            if check.mend is not None:
                print(f"{'':<8}   {output.printable(check.mend)}", flush=True)
    problems = sum(check.outcome == PROBLEM for check in checks)
    result: dict[str, object] = {
        "repository": None if folder is None else str(folder),
        "ok": not problems,
        "checks": [check._asdict() for check in checks],
    }
    if problems:
        raise EnvironmentProblem(f"{output.count(problems, 'thing')} must be mended", details=result)
    return result


def _folder(repo: Path | None) -> Path | None:
    """One that is named must be there."""
    try:
        return repository_folder(repo)
    except RepositoryNotFound:
        if named_folder(repo) is not None:
            raise
        return None


COMMANDS = {"doctor": doctor}
