"""Generates the PrometheusRule of the Prometheus operator from `deploy/prometheus/rules`, which promtool checks.

`python -m deploy.prometheus_rule` (`make generate`) writes it; `make check-deploy` fails when it is out of date.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import yaml

from deploy.check.result import REPOSITORY
from deploy.check.series import FOLDER

FILE: Final = REPOSITORY / "k8s" / "components" / "monitoring" / "rules.yaml"
_HEAD: Final = "# Generated from deploy/prometheus/rules by `make generate`; do not edit.\n"


def problems() -> list[str]:
    """Return a sentence when the PrometheusRule is out of date."""
    if FILE.is_file() and FILE.read_text(encoding="utf-8") == rendered():
        return []
    return [f"{FILE.relative_to(REPOSITORY)} is not generated from the present deploy/prometheus/rules; run: make generate"]


def rendered() -> str:
    """Return the text of the PrometheusRule with the groups of all files in order."""
    groups: list[Any] = []
    for file in sorted((FOLDER / "rules").glob("*.yml")):
        groups += yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]
    rule = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "aquiline"},
        "spec": {"groups": groups},
    }
    return _HEAD + yaml.safe_dump(rule, sort_keys=False, width=1000, allow_unicode=True)


if __name__ == "__main__":
    FILE.write_text(rendered(), encoding="utf-8")
    sys.stdout.write(f"wrote {FILE.relative_to(REPOSITORY)}\n")
