"""Names that several installed packages register: which of their entry points is used would depend on the order of the Python path."""

from __future__ import annotations

from importlib.metadata import entry_points


def twice(group: str) -> dict[str, str]:
    """Return each name that more than one package registers in an entry point group, with what they are: `one (a:A) and two (b:B)`."""
    found: dict[str, list[str]] = {}
    for entry in entry_points(group=group):
        package = "a package without metadata" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
        found.setdefault(entry.name, []).append(f"{package} ({entry.value})")
    return {name: " and ".join(sorted(packages)) for name, packages in sorted(found.items()) if len(packages) > 1}
