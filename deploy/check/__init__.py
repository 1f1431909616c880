"""Checks of what is deployed, without a container engine: `python -m deploy.check`, also `make check-deploy`.

A module a subject; each has a `check()` that returns what it found (`found.py`), and `__main__.py` names it.
"""
