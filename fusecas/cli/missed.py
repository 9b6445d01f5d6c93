"""Why a command was executed though it had been before: in a line, and how that can be changed."""

import json
from collections.abc import Mapping
from typing import Any

from fusecas.cli import output
from fusecas.wire import path_of

MOST_SHOWN = 3
OF_HOST = {"packages": "installed packages", "system": "another system", "program": "the program itself"}


def missed_text(answer: Mapping[str, Any]) -> str | None:
    """Of what `run.begin` has answered; None if there is nothing to say."""
    if answer["refused"] is not None:
        return f"run again: {answer['refused']}"
    missed = answer["missed"]
    if missed is None:
        return None
    env, touched = missed["env"], [output.path_text(path_of(each)) for each in missed["touched"]]
    parts = [*env[:MOST_SHOWN], *(OF_HOST.get(each, each) for each in missed["host"]), *missed["other"]]
    if len(env) > MOST_SHOWN:
        parts.insert(MOST_SHOWN, f"{len(env) - MOST_SHOWN} more variables")
    if touched:
        more = f" and {len(touched) - MOST_SHOWN} more" if len(touched) > MOST_SHOWN else ""
        parts.append(f"the times of {', '.join(touched[:MOST_SHOWN])}{more}")
    if not parts:
        return None
    only_env = parts == env and env
    hint = f" (fusecas.toml: [run] ignore_env = {json.dumps(env)})" if only_env else ""
    return f"missed only by {', '.join(parts)}{hint}"
