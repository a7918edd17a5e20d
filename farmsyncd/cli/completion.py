"""``farmsync completion``: the script that teaches a shell to complete farmsync's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion", short_help="Print a shell's completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    r"""Print the completion script for SHELL.

    \b
    bash:  farmsync completion bash > ~/.local/share/bash-completion/completions/farmsync
    zsh:   farmsync completion zsh > "${fpath[1]}/_farmsync"
    fish:  farmsync completion fish > ~/.config/fish/completions/farmsync.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(context.find_root().command, {}, "farmsync", "_FARMSYNC_COMPLETE").source())
