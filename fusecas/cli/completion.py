"""What a shell must be told to complete our words."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusecas.cli import output
from fusecas.cli.common import verb

if TYPE_CHECKING:
    from fusecas.cli.call import Call

SHELLS = ("bash", "zsh", "fish")


@verb("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str, call: "Call", repo: Path | None) -> Any:
    """Print what makes SHELL complete the words of fusecas: its start-up file evaluates it.

    bash: eval "$(fusecas completion bash)" in ~/.bashrc. zsh: the same with zsh in ~/.zshrc, after compinit. fish:
    fusecas completion fish > ~/.config/fish/completions/fusecas.fish

    Example: fusecas completion bash
    """
    from click.shell_completion import ShellComplete, get_completion_class

    from fusecas.cli.program import COMPLETION, fusecas

    kind = get_completion_class(shell)
    assert kind is not None, "click knows all of these"
    # Not that of bash itself, which would ask the bash of this machine for its version.
    text = ShellComplete.source(kind(fusecas, {}, "fusecas", COMPLETION))
    if not call.as_json:
        output.write_bytes(text.encode())
    return {"shell": shell, "script": text}


COMMANDS = {"completion": completion}
