"""Raised by a service that cannot continue, for a reason that its operator can fix."""

from __future__ import annotations


class ServiceError(Exception):
    """A service cannot go on; the text says in one sentence why, and what to do. The process ends with it."""
