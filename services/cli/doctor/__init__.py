"""`aquiline doctor`: looks at everything that Aquiline stands on, and says what is wrong and how to mend it."""

from services.cli.doctor.command import app

__all__ = ["app"]
