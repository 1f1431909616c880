"""`python -m tests.cluster`, also `make test-cluster`: runs this folder's tests, stores the run's figures, and ends with a verdict."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deploy.local import LocalError
from tests.cluster.binaries import Binaries, binaries
from tests.stored import store


class _Count:
    """Counts what pytest reports: `passed`, and everything else."""

    def __init__(self) -> None:
        self.passed = 0
        self.others = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one phase of one test."""
        if report.when == "call" and report.passed:
            self.passed += 1
        elif not report.passed:
            self.others += 1


def main() -> int:
    """Run the tests and return the exit status."""
    started = time.perf_counter()
    try:
        programs = binaries(lambda text: _say(f"cluster: {text}"))
    except LocalError as error:
        _say(f"test-cluster: FAILED: {error}")
        return 1
    built_s = time.perf_counter() - started
    count = _Count()
    started = time.perf_counter()
    status = pytest.main([str(Path(__file__).parent), "-v", "-s", "--no-header", "-p", "no:cacheprovider"], plugins=[count])
    took_s = time.perf_counter() - started
    passed = status == pytest.ExitCode.OK and not count.others
    if passed:
        store("cluster", "make test-cluster", _figures(programs, count.passed, took_s))
    built = f" after {built_s:.0f} s of building" if programs.built else ""
    failures = "" if passed else f", {count.others} failed or skipped"
    _say(f"test-cluster: {'passed' if passed else 'FAILED'}: {count.passed} tests passed{failures} in {took_s:.0f} s{built}")
    return 0 if passed else 1


def _figures(programs: Binaries, tests: int, took_s: float) -> dict[str, Any]:
    return {
        "Kubernetes": programs.version,
        "tests": tests,
        "seconds": round(took_s, 1),
        "seconds of building, once before": programs.build_s,
        "load average at the end": round(os.getloadavg()[0], 1),
    }


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
