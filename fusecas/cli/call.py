"""One call of the program: what was typed, and what every verb must know of it."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import click

SETTING_VARIABLES = ("run", "exec", "shell", "batch")
SEPARATE, ATTACHED = re.compile("-k?e|--env"), re.compile("(-k?e|--env=)(?=.)")
LEFT_OUT = "…"


class Call:
    """Belongs to the context of click. `verb` is known once its words were read; `repo` and `json_before` are what
    stood before it. `json_lines`: the answer is the last of several documents. `workspace`: the one that is meant by
    @, once somebody has asked (asking.py). `wants_dates`: when something was, not how long ago."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self.verb: str | None = None
        self.repo: Path | None = None
        self.json_before = False
        self.workspace: str | None = None
        self.wants_dates = False
        # Asked of the words themselves: a call that can't be parsed is answered in JSON too.
        self.json_lines = self._flag("--json=lines")
        self.as_json = self.json_lines or self._flag("--json")
        self.debug = self._flag("--debug")

    @classmethod
    def of(cls, context: click.Context) -> Self:
        call = context.find_object(cls)
        assert call is not None, "every context is made with its call"
        return call

    def _flag(self, name: str) -> bool:
        before_paths = self.words[: self.words.index("--")] if "--" in self.words else self.words
        return name in before_paths

    def deed(self) -> tuple[tuple[bytes, ...], str]:
        """(argv, actor) for an operation: what was typed, and by whom."""
        import getpass

        try:
            actor = getpass.getuser()
        except (KeyError, OSError):
            actor = str(os.getuid())
        words = _without_values(self.words) if self.verb in SETTING_VARIABLES else self.words
        return tuple(os.fsencode(each) for each in words), os.fsencode(actor).decode(errors="replace")


def _without_values(words: Sequence[str]) -> list[str]:
    """Values of variables are recorded nowhere: `--env NAME=VALUE` is, as `--env NAME=…`."""
    end = words.index("--") if "--" in words else len(words)
    found = list(words)
    for at, word in enumerate(words[:end]):
        attached = ATTACHED.match(word)
        if attached is not None:
            found[at] = attached[1] + _name_only(word[attached.end() :])
        elif at > 0 and SEPARATE.fullmatch(words[at - 1]):
            found[at] = _name_only(word)
    return found


def _name_only(variable: str) -> str:
    name, equals, _ = variable.partition("=")
    return f"{name}={LEFT_OUT}" if equals else variable
