"""`python -m deploy.check [NAME...]`: runs all checks, or those named, and prints a line for each; the exit status is 1 on a problem."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Final

from deploy.check import compose, dashboards, docker, k8s, rules
from deploy.check.result import CheckResult
from deploy.check.tools import MissingToolError

CHECKS: Final[Mapping[str, Callable[[], CheckResult]]] = {
    "compose": compose.check,
    "docker": docker.check,
    "rules": rules.check,
    "dashboards": dashboards.check,
    "k8s": k8s.check,
}


def main(argv: list[str] | None = None) -> int:
    """Run the checks and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.check", description="Check everything that is deployed, without a container engine."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(CHECKS)}; all by default")
    names = parser.parse_args(argv).names
    if unknown := [name for name in names if name not in CHECKS]:
        parser.error(f"unknown check {', '.join(unknown)}; expected {', '.join(CHECKS)}")
    return max([_run(name) for name in names or CHECKS])


def _run(name: str) -> int:
    try:
        result = CHECKS[name]()
    except MissingToolError as error:
        result = CheckResult("not checked", [str(error)])
    verdict = f"{len(result.problems)} wrong" if result.problems else "ok"
    sys.stdout.write(f"{name:<11} {verdict:<9} {result.subject}\n" + "".join(f"  {problem}\n" for problem in result.problems))
    return 1 if result.problems else 0


if __name__ == "__main__":
    sys.exit(main())
