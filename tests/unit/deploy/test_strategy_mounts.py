"""A strategy's folder on Docker Compose and Kubernetes, as docs/strategies.md says: pods and containers load it, mistakes are reported."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import yaml

from deploy.check import composefile
from deploy.check.k8s import configuration, problems
from deploy.check.k8s.rendered import render
from deploy.check.result import REPOSITORY
from services.core.settings import SettingsError, load
from services.strategy.folder import new, read

DOCS = (REPOSITORY / "docs" / "strategies.md").read_text(encoding="utf-8").partition("## On Docker Compose and Kubernetes")[2]
OVERRIDE = REPOSITORY / "deploy" / "compose.strategy.yml"
MOUNTED = "/etc/aquiline/strategy"
REMOVED = object()


def daily(folder: Path) -> Path:
    """Make a strategy for daily bars."""
    new(folder, "momentum")
    toml = folder / "strategy.toml"
    toml.write_text(toml.read_text().replace("1m = 256\n15m = 64\n1h = 64\n", "1d = 256\n1w = 64\n"))
    return folder


def documented(language: str) -> str:
    """Return the block in that language."""
    block = re.search(rf"```{language}\n(.*?)```", DOCS, re.DOTALL)
    assert block is not None
    return block[1]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Return an overlay of one's own with a strategy, made of what the page shows."""
    shutil.copytree(REPOSITORY / "k8s", tmp_path / "k8s")
    site = tmp_path / "site"
    site.mkdir()
    daily(site / "momentum")
    head = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamespace: aquiline\nresources: [../k8s/overlays/local]\n"
    (site / "kustomization.yaml").write_text(head + documented("yaml"))
    settings = (REPOSITORY / "k8s" / "overlays" / "local" / "aquiline.toml").read_text()
    fusion, market = (part.strip() for part in documented("toml").split("\n\n"))
    settings = settings.replace('[fusion]\nintervals = ["1d", "1w"]', fusion).replace("[market]", market)
    (site / "aquiline.toml").write_text(settings)
    return site


def test_an_overlay_with_a_strategy_has_no_problems_and_every_word_of_it_rolls_the_pods_out(site: Path) -> None:
    before = render(str(site))
    assert problems(before) == []
    instructions = site / "momentum" / "instructions.md"
    instructions.write_text(instructions.read_text().replace("momentum", "trend", 1))
    after = render(str(site))
    names = [
        [one["metadata"]["name"] for one in overlay.of_kind("ConfigMap") if "strategy.toml" in one["data"]] for overlay in (before, after)
    ]
    assert len(names[0]) == len(names[1]) == 1
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("file", "old", "new_text", "said"),
    [
        ("momentum/strategy.toml", "[triggers]", "[trigers]", "trigers is no key of a strategy"),
        ("kustomization.yaml", "momentum/instructions.md, ", "", "instructions.md cannot be read"),
        ("kustomization.yaml", ", momentum/features.py", "", "market.features_file names '/etc/aquiline/features.py'; the ConfigMap"),
        ("aquiline.toml", 'strategy = "."', 'strategy = "."\nintervals = ["1d"]', "move fusion.intervals to [intervals]"),
    ],
)
def test_a_strategy_that_the_pods_could_not_load_is_reported(site: Path, file: str, old: str, new_text: str, said: str) -> None:
    edited = site / file
    text = edited.read_text()
    if old not in text:
        text += f"\n{old}\n"
    edited.write_text(text.replace(old, new_text, 1))
    assert said in " ".join(configuration.problems(render(str(site))))


class _Loader(yaml.SafeLoader):
    """Reads Compose's `!reset`, which takes a value of the first file away."""


_Loader.add_constructor("!reset", lambda *_: REMOVED)


def merged(service: str) -> tuple[dict[str, str], list[Any]]:
    """Return the variables of a service with the second file over the first, and the volumes that the second adds."""
    override = yaml.load(OVERRIDE.read_text(), _Loader)["services"][service]  # noqa: S506 - a safe loader's child
    variables = composefile.load().services[service]["environment"] | override["environment"]
    return {name: value for name, value in variables.items() if value is not REMOVED}, override["volumes"]


@pytest.mark.parametrize("service", ["fusion", "fusion-gpu", "console", "console-gpu", "market"])
def test_the_containers_load_the_strategy_that_compose_mounts(service: str, tmp_path: Path) -> None:
    folder = daily(tmp_path / "momentum")
    variables, (volume,) = merged(service)
    assert volume["target"] == MOUNTED
    assert volume["read_only"] is True
    assert volume["bind"] == {"create_host_path": False}
    here = {name: value.replace(MOUNTED, str(folder)) for name, value in variables.items() if name != "AQUILINE_SECRETS_DIR"}
    with patch.dict("os.environ", here, clear=True):
        settings = load()
    if service == "market":
        assert settings.market.features_file == folder / "features.py"
    else:
        assert settings.fusion.strategy == read(folder)
        assert settings.fusion.intervals == ["1d", "1w"]


def test_without_the_reset_the_intervals_would_have_two_places(tmp_path: Path) -> None:
    folder = daily(tmp_path / "momentum")
    variables = composefile.load().services["fusion"]["environment"] | {"AQUILINE_FUSION__STRATEGY": str(folder)}
    del variables["AQUILINE_SECRETS_DIR"]
    with patch.dict("os.environ", variables, clear=True), pytest.raises(SettingsError, match=r"move fusion.intervals to \[intervals\]"):
        load()
