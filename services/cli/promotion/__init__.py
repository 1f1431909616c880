"""`aquiline promote` and `aquiline rollback`: what decides live, changed in one step, with its history, and back in one."""

from services.cli.promotion.command import promote_app, rollback_app

__all__ = ["promote_app", "rollback_app"]
