"""`aquiline config`: checks the settings, or prints those in force with secrets masked."""

from __future__ import annotations

import typer

from services.cli.options import ConfigOption
from services.core.settings import SettingsError, load
from services.core.table_inputs import check_shown, input_classes
from services.doctor.settings_in_force import as_toml, masked, missing_files
from services.strategy.hooks import Hooks

app = typer.Typer(help="Check the settings, or print those in force.", no_args_is_help=True)


@app.command()
def check(config: ConfigOption = None) -> None:
    """Read the settings as a service does at its start, and report what is wrong with them.

    Nothing is connected to; `aquiline doctor` does that.
    """
    settings = load(config)
    Hooks.of(settings.fusion.strategy)
    check_shown(settings.fusion.strategy.inputs)
    input_classes()
    if missing := missing_files(settings):
        raise SettingsError("; ".join(missing))
    typer.echo(
        f"The settings are valid: run mode {settings.run_mode.value}, bus {settings.bus.url}, redis {settings.redis.url}, "
        f"engine {settings.engine.kind} at {masked(', '.join(settings.engine.urls))}."
    )


@app.command()
def show(config: ConfigOption = None) -> None:
    """Print the settings in force, from file, variables, secret files and defaults, as TOML. Secrets are masked."""
    typer.echo(as_toml(load(config)), nl=False)
