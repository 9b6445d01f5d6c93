"""The variables that a command sees, as its key has them: digests, but for what differs between two terminals."""

import os
import re
from collections.abc import Iterable, Sequence
from fnmatch import translate
from functools import lru_cache

from blake3 import blake3

SESSION = """
PWD OLDPWD SHLVL _ HOME USER LOGNAME MAIL HOSTNAME HOSTTYPE
TERM* COLORTERM COLUMNS LINES LS_COLORS WINDOWID TMUX* STY VSCODE_*
SSH_* GPG_TTY GPG_AGENT_INFO DISPLAY WAYLAND_DISPLAY XAUTHORITY XDG_* DBUS_* DESKTOP_SESSION GNOME_* KDE_*
INVOCATION_ID JOURNAL_STREAM SYSTEMD_EXEC_PID MANAGERPID LESSOPEN LESSCLOSE
PS1 PS2 PROMPT* HISTFILE HISTSIZE HISTCONTROL
CI_JOB_* GITHUB_RUN_* GITHUB_ENV GITHUB_OUTPUT GITHUB_PATH GITHUB_STATE GITHUB_STEP_SUMMARY RUNNER_*
"""
"""What two terminals, a CI job and an agent on one machine have otherwise, and no result should depend on."""
OWN = ("FUSECAS_*", "STATEKIT_*", "E3_REPO", "GIT_CEILING_DIRECTORIES")
SECRETS = ("*TOKEN*", "*SECRET*", "*PASSWORD*", "*PASSWD*")
SESSION_NOISE = (*SESSION.split(), *SECRETS)
WORKSPACE_MARK = b"\0workspace\0"


def digests(
    variables: Iterable[tuple[bytes, bytes]], ignored: Sequence[str], workspace: bytes, secret: bytes
) -> tuple[tuple[bytes, bytes], ...]:
    """(name, digest) of what is in the key, by name. `ignored`: patterns of what is not. `workspace`: its path, which a
    value may hold anywhere."""
    is_left_out = _pattern(tuple(ignored)).match
    found = {name: value for name, value in variables if not is_left_out(os.fsdecode(name))}
    path = re.compile(re.escape(workspace) + rb"(?=[/:;,'\"`\s]|\Z)")  # not the beginning of a longer name
    return tuple(
        (name, digest_of(path.sub(lambda _: WORKSPACE_MARK, value), secret)) for name, value in sorted(found.items())
    )


@lru_cache
def _pattern(ignored: tuple[str, ...]) -> re.Pattern[str]:
    """Of names that are left out. Patterns of secrets don't care about case, unless they were taken out."""
    patterns = (*OWN, *ignored)
    return re.compile("|".join(f"(?i:{translate(each)})" if each in SECRETS else translate(each) for each in patterns))


def digest_of(value: bytes, secret: bytes) -> bytes:
    """Under a secret: so that a value of a few letters can't be found by trying."""
    return blake3(value, key=secret).digest()
