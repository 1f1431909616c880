"""`aquiline secrets create`: random passwords as files, created once, for a stack that runs its own Redis and engine.

The folder is the one that every service reads its secrets from (AQUILINE_SECRETS_DIR). No secret is printed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

import typer

from services.cli.options import ConfigOption
from services.core.settings import SettingsError, load

app = typer.Typer(no_args_is_help=True, help="Create random passwords as files.")

_PASSWORD: Final = "aquiline_redis__password"  # noqa: S105 - a file's name
_API_KEY: Final = "aquiline_engine__api_key"
_CONSOLE_TOKEN: Final = "aquiline_console__token"  # noqa: S105 - likewise
_ACL: Final = "redis.acl"
# Enough for the prefix cache and `aquiline doctor`; no command that empties or reconfigures the server.
_RULES: Final = "resetchannels -@all +@read +@write +@connection -@dangerous +info"


@app.callback()
def _secrets() -> None:
    """Create random passwords as files."""


@app.command()
def create(
    config: ConfigOption = None,
) -> None:
    """Create a Redis password, an engine key, a console token and an ACL file for Redis in the folder AQUILINE_SECRETS_DIR.

    Existing passwords are kept. Only the owner can read the files. The ACL file holds the password's hash; it disables Redis' default
    user and lets `redis.username` read and write keys under `redis.namespace`.
    """
    folder = os.environ.get("AQUILINE_SECRETS_DIR")
    if folder is None:
        raise SettingsError("AQUILINE_SECRETS_DIR is not set; set it to the folder for the secrets")
    settings = load(config).redis
    if settings.username is None:
        raise SettingsError("redis.username is not set; the ACL file needs the name of the user that may log in")
    for name in (_PASSWORD, _API_KEY, _CONSOLE_TOKEN):
        if not (Path(folder) / name).exists():
            _write(Path(folder) / name, secrets.token_urlsafe(32))
    digest = hashlib.sha256((Path(folder) / _PASSWORD).read_bytes()).hexdigest()
    # Written each time, so that it matches the password and this version's rules.
    _write(Path(folder) / _ACL, f"user default off\nuser {settings.username} on #{digest} ~{settings.namespace}:* {_RULES}\n")


def _write(file: Path, text: str) -> None:
    """Write the file in one step: an interrupted run must not leave half a password."""
    partial = file.with_name(file.name + ".partial")
    partial.touch(mode=0o600)
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
    typer.echo(f"wrote {file}", err=True)
