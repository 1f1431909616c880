"""`python -m deploy.check [NAME...]`: runs the checks, all or those named, a line each; the exit status is 1 when something is wrong."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Final

from deploy.check import compose, dashboards, docker, k8s, rules
from deploy.check.found import Found
from deploy.check.tools import MissingToolError

CHECKS: Final[Mapping[str, Callable[[], Found]]] = {
    "compose": compose.check,
    "docker": docker.check,
    "rules": rules.check,
    "dashboards": dashboards.check,
    "k8s": k8s.check,
}


def main(argv: list[str] | None = None) -> int:
    """Run the checks and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.check", description="Check what is deployed, without a container engine.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(CHECKS)}; all when none is named")
    names = parser.parse_args(argv).names
    if unknown := [name for name in names if name not in CHECKS]:
        parser.error(f"there is no check {', '.join(unknown)}; choose from {', '.join(CHECKS)}")
    return max([_run(name) for name in names or CHECKS])


def _run(name: str) -> int:
    try:
        found = CHECKS[name]()
    except MissingToolError as error:
        found = Found("not checked", [str(error)])
    verdict = f"{len(found.problems)} wrong" if found.problems else "ok"
    sys.stdout.write(f"{name:<11} {verdict:<9} {found.looked_at}\n" + "".join(f"  {problem}\n" for problem in found.problems))
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
