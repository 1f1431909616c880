"""The Compose file on a real Docker Engine, and how long that took.

With everything in `.cache/containers` the row is `cached`, else `first`. Stand-ins are made of Debian's packages.
"""
