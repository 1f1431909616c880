"""`aquiline secrets create`: random passwords as files, made once, for a stack that brings its own Redis and engine.

The folder is the one that every service reads its secrets from (AQUILINE_SECRETS_DIR); nothing is printed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Annotated, Final

import typer

from services.core.settings import SettingsError, load

app = typer.Typer(no_args_is_help=True, help="Passwords as files.")

_PASSWORD: Final = "aquiline_redis__password"  # noqa: S105 - a file's name
_API_KEY: Final = "aquiline_engine__api_key"
_ACL: Final = "redis.acl"
# What the prefix cache and `aquiline doctor` do, and nothing that empties or reconfigures the server.
_RULES: Final = "resetchannels -@all +@read +@write +@connection -@dangerous +info"


@app.callback()
def _secrets() -> None:
    """Passwords as files."""


@app.command()
def create(
    config: Annotated[Path | None, typer.Option(help="Settings file; else AQUILINE_CONFIG and AQUILINE_* variables.")] = None,
) -> None:
    """Write what is missing of Redis' password, the engine's key, and an ACL file for Redis, to the folder AQUILINE_SECRETS_DIR.

    What is there stays as it is. Files can be read by their owner alone. The ACL file knows the password by its hash; it switches
    Redis' default user off and lets `redis.username` read and write below `redis.namespace`.
    """
    folder = os.environ.get("AQUILINE_SECRETS_DIR")
    if folder is None:
        raise SettingsError("AQUILINE_SECRETS_DIR names no folder; set it to the one that secrets are to be kept in")
    settings = load(config).redis
    if settings.username is None:
        raise SettingsError("redis.username is missing: the ACL file needs the name of the user that it lets in")
    for name in (_PASSWORD, _API_KEY):
        if not (Path(folder) / name).exists():
            _write(Path(folder) / name, secrets.token_urlsafe(32))
    digest = hashlib.sha256((Path(folder) / _PASSWORD).read_bytes()).hexdigest()
    # Written each time, so that it goes with the password and the rules of this version.
    _write(Path(folder) / _ACL, f"user default off\nuser {settings.username} on #{digest} ~{settings.namespace}:* {_RULES}\n")


def _write(file: Path, text: str) -> None:
    """Write the file whole or not at all: a start that was cut short must not leave half a password."""
    partial = file.with_name(file.name + ".partial")
    partial.touch(mode=0o600)
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)
    typer.echo(f"wrote {file}", err=True)
