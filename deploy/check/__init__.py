"""Checks of everything that is deployed: `python -m deploy.check`, also `make check-deploy`. They need no container engine.

One module checks one subject; its `check()` returns a `CheckResult` (`result.py`), and `__main__.py` lists it.
"""
