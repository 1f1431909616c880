"""What docs/operations.md tells an operator to type exists, and the overlay of one's own that it shows is fine."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Final

import pytest

from deploy.check import k8s
from deploy.check.commands import refusal
from deploy.check.k8s.rendered import render
from deploy.check.result import REPOSITORY

PAGE: Final = (REPOSITORY / "docs" / "operations.md").read_text(encoding="utf-8")
TYPED: Final = [line for block in re.findall(r"^ *```sh\n(.*?)^ *```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
OURS: Final = sorted(
    {typed[1] for line in TYPED if (typed := re.search(r"(?:^|-- |[A-Z]=\S+ )(aquiline .*)$", line.strip()))}
    | set(re.findall(r"`(aquiline [a-z][^`]*)`", PAGE))
)


def test_the_page_has_commands() -> None:
    assert len(OURS) > 10


@pytest.mark.parametrize("command", OURS)
def test_each_command_of_aquiline_takes_its_arguments(command: str) -> None:
    _, name, *arguments = shlex.split(command, comments=True)
    # In running text a command stands for itself, without the arguments that it asks for.
    refused = refusal(name, arguments or ["--help"])
    assert refused is None or (command not in "\n".join(TYPED) and refused.startswith("Missing"))


def test_each_target_of_make_and_each_file_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", PAGE)) <= targets
    named = set(re.findall(r"\b((?:k8s|deploy|benchmarks|docs)/[\w./-]+\w)", PAGE))
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []


def test_an_overlay_of_ones_own_as_the_page_shows_it_is_fine(tmp_path: Path) -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    # Kustomize takes no absolute paths, so the folder is beside k8s/ as the page has it.
    (tmp_path / "k8s").mkdir()
    for folder in ("base", "components", "overlays"):
        shutil.copytree(REPOSITORY / "k8s" / folder, tmp_path / "k8s" / folder)
    site = tmp_path / "site"
    site.mkdir()
    (site / "kustomization.yaml").write_text(shown)
    settings = (REPOSITORY / "k8s/overlays/scale/aquiline.toml").read_text(encoding="utf-8")
    (site / "aquiline.toml").write_text(settings.replace("permits = 2", "permits = 3"))
    overlay = render(str(site))
    assert k8s.problems(overlay) == []
    assert {one.pod["containers"][0]["image"].split("/")[0] for one in overlay.workloads} == {"registry.example", "redis:8.2.9-alpine"}
    (config,) = overlay.of_kind("ConfigMap")
    assert "permits = 3" in config["data"]["aquiline.toml"]
