"""The variables that a command sees, as its key has them: digests, but for what differs between two terminals."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

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
    found = {name: value for name, value in variables if not is_left_out(name, ignored)}
    return tuple(
        (name, digest_of(value.replace(workspace, WORKSPACE_MARK), secret)) for name, value in sorted(found.items())
    )


def is_left_out(name: bytes, ignored: Sequence[str]) -> bool:
    """Patterns of secrets don't care about case, unless they were taken out."""
    text = name.decode(errors="surrogateescape")
    return any(
        fnmatchcase(text, pattern) or (pattern in SECRETS and fnmatchcase(text.upper(), pattern))
        for pattern in (*OWN, *ignored)
    )


def digest_of(value: bytes, secret: bytes) -> bytes:
    """Under a secret: so that a value of a few letters can't be found by trying."""
    return blake3(value, key=secret).digest()
