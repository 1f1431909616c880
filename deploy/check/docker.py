"""Dockerfiles: hadolint's rules, and that nothing is installed without its hash."""

from __future__ import annotations

from deploy.check.found import REPOSITORY, Found
from deploy.check.tools import problems, run


def check() -> Found:
    """Lint every Dockerfile of `deploy/docker`."""
    files = sorted((REPOSITORY / "deploy" / "docker").glob("*.Dockerfile"))
    names = [str(file.relative_to(REPOSITORY)) for file in files]
    wrong = problems(run("hadolint", ["--no-color", *names], install="make setup"))
    for name, file in zip(names, files, strict=True):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if "pip" in line and "install" in line and "--no-deps" not in line:
                wrong.append(f"{name}:{number}: `{line.strip()}` resolves packages by itself; install from a lock with --no-deps")
    return Found(f"{len(files)} Dockerfiles", wrong)
