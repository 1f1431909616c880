"""The commands of docs/operations.md, and how far each can be run on a cluster whose pods have no containers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from deploy.check.k8s.rendered import selects
from deploy.check.result import REPOSITORY
from tests.cluster.cluster import NAMESPACE, Cluster

TEXT: Final = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
_CONTAINERS: Final = ("docker", "kind", "minikube")
"""Programs that need a container engine."""


def section(heading: str) -> str:
    """Return the text between a heading of the second level and the next one."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/operations.md has no section {heading!r}"
    return found[1]


def steps(heading: str) -> list[list[str]]:
    """Return the command lines of each `sh` block of a section, in order."""
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```", section(heading), re.MULTILINE | re.DOTALL)
    return [[line.removeprefix(indent) for line in block.splitlines() if line.strip()] for indent, block in blocks]


def commands_in_text(heading: str) -> list[str]:
    """Return the commands of kubectl within the running text of a section."""
    return re.findall(r"`(kubectl [^`]+)`", section(heading))


def machine_size(heading: str) -> tuple[int, int]:
    """Return the cores, and the GiB of memory, that a section's minikube command gives its node."""
    found = re.search(r"minikube start .*--cpus (\d+) --memory (\d+)g", section(heading))
    assert found is not None
    return int(found[1]), int(found[2])


def sections_with_kubectl() -> set[str]:
    """Return the headings of the sections in which an operator types kubectl."""
    headings = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    return {heading for heading in headings if any("kubectl" in line for block in steps(heading) for line in block)}


def checkout(folder: Path) -> Path:
    """Make `folder` a checkout with a `k8s/` of its own, in which the page's relative paths work, and return it."""
    for entry in REPOSITORY.iterdir():
        if entry.name not in {"k8s", ".git", "site"}:
            (folder / entry.name).symlink_to(entry)
    for file in (REPOSITORY / "k8s").rglob("*"):
        if file.is_file():
            copied = folder / file.relative_to(REPOSITORY)
            copied.parent.mkdir(parents=True, exist_ok=True)
            copied.write_bytes(file.read_bytes())
    return folder


def own_overlay(folder: Path) -> Path:
    """Write the overlay of one's own that the page shows into a checkout, with the settings of `scale`, and return it."""
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    site = folder / "site"
    site.mkdir()
    (site / "kustomization.yaml").write_text(shown, encoding="utf-8")
    (site / "aquiline.toml").write_bytes((folder / "k8s/overlays/scale/aquiline.toml").read_bytes())
    return site


def follow(cluster: Cluster, folder: Path, commands: list[str]) -> None:
    """Run a block's commands in order; check what a command names where running it needs a container."""
    for command in commands:
        if command.startswith(_CONTAINERS):
            continue
        if inside := re.match(rf"kubectl -n {NAMESPACE} exec (\S+) -- ", command):
            assert _runs(cluster.get("pod", inside[1])), command
        elif forwarded := re.fullmatch(rf"kubectl -n {NAMESPACE} port-forward deployment/(\S+) \d+", command):
            selector = cluster.get("deployment", forwarded[1])["spec"]["selector"]
            pods = [pod for pod in cluster.items("pod") if selects(selector, pod["metadata"]["labels"])]
            assert [_runs(pod) for pod in pods] == [True], command
        else:
            cluster.shell(command, folder=folder, warnings="kubectl apply" not in command)


def _runs(pod: dict[str, object]) -> bool:
    status = pod["status"]
    assert isinstance(status, dict)
    return bool(status["phase"] == "Running")
