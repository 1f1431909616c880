"""The real model in containers: the worker's settings name what its image holds, and ask the way the demo does."""

from __future__ import annotations

import os
from pathlib import Path
from unittest.mock import patch

import pytest

from deploy.check import composefile
from deploy.check.k8s.configuration import settings_of
from deploy.check.k8s.rendered import render
from services.core.settings import Settings, load
from services.demo.setup import MODEL_FUSION, MODEL_SYMBOLS
from services.inference.local.weights import weights_in


def _of_compose() -> Settings:
    variables = composefile.load().services["fusion-local"]["environment"]
    with patch.dict(os.environ, {name: value for name, value in variables.items() if name != "AQUILINE_SECRETS_DIR"}, clear=True):
        return load()


def _of_kubernetes() -> Settings:
    settings = settings_of(render("k8s/overlays/local-model"))
    assert isinstance(settings, Settings), settings
    return settings


@pytest.fixture(params=["compose", "kubernetes"])
def settings(request: pytest.FixtureRequest) -> Settings:
    return _of_compose() if request.param == "compose" else _of_kubernetes()


def test_the_worker_uses_the_tokenizer_and_the_template_of_the_model_in_its_image(settings: Settings) -> None:
    weights = weights_in(Path("/models"))
    assert settings.engine.kind == "llamacpp"
    assert settings.engine.tokenizer_file == weights.tokenizer
    assert settings.engine.chat_template == weights.chat_template


def test_the_worker_asks_the_way_the_demo_does(settings: Settings) -> None:
    assert {name: getattr(settings.fusion, name) for name in MODEL_FUSION} == MODEL_FUSION
    assert len(settings.fusion.symbols) == MODEL_SYMBOLS


def test_what_the_image_serves_from_is_where_it_was_built_to() -> None:
    dockerfile = (composefile.FILE.parent / "deploy" / "docker" / "services.Dockerfile").read_text(encoding="utf-8")
    command = composefile.split_command(composefile.load().services["smollm2"]["command"])
    pod = render("k8s/overlays/local-model").workload("engine").command
    assert "engine local --fetch-only --folder /models " in dockerfile
    for words in (command, pod):
        assert words[words.index("--folder") + 1] == "/models"
