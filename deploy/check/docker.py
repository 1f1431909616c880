"""Checks the Dockerfiles: hadolint's rules, no package without a hash, and existing sources for every COPY."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deploy.check.result import REPOSITORY, CheckResult
from deploy.check.tools import problems, run


def check() -> CheckResult:
    """Check every Dockerfile of `deploy/docker`."""
    files = sorted((REPOSITORY / "deploy" / "docker").glob("*.Dockerfile"))
    names = [str(file.relative_to(REPOSITORY)) for file in files]
    wrong = problems(run("hadolint", ["--no-color", *names], install="make setup"))
    for name, file in zip(names, files, strict=True):
        text = file.read_text(encoding="utf-8")
        wrong += [f"{name}: {sentence}" for sentence in (*_resolved(text), *_copied(text, REPOSITORY))]
    return CheckResult(f"{len(files)} Dockerfiles", wrong)


def _resolved(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if "pip" in line and "install" in line and "--no-deps" not in line:
            yield f"`{line.strip()}` resolves packages itself; install from a lock with --no-deps"


def _copied(text: str, repository: Path) -> Iterator[str]:
    """Yield a sentence for each source of COPY that does not exist or that `.dockerignore` excludes."""
    included = [line[1:] for line in (repository / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")]
    for line in text.splitlines():
        words = line.split()
        if words[:1] != ["COPY"] or words[1].startswith("--from"):
            continue
        for source in words[1:-1]:
            if not (repository / source).exists():
                yield f"`{line}`: {source} does not exist"
            if not any(source == path or source.startswith(f"{path}/") for path in included):
                yield f"`{line}`: .dockerignore excludes {source} from the build"
