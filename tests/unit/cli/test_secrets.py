"""`aquiline secrets create`: files that only their owner reads, made once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.cli.secrets import app
from services.core.settings import SettingsError, load


def _create() -> None:
    CliRunner().invoke(app, ["create"], catch_exceptions=False)


def test_services_find_the_secrets_that_were_made_and_a_second_time_leaves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("AQUILINE_REDIS__USERNAME", "somebody")
    _create()
    made = {file.name: file.read_text() for file in tmp_path.iterdir()}
    _create()
    assert made == {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert {0o600} == {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    password, key = load().redis.password, load().engine.api_key
    assert password is not None
    assert key is not None
    assert made["aquiline_redis__password"] == password.get_secret_value() != key.get_secret_value()
    digest = hashlib.sha256(password.get_secret_value().encode()).hexdigest()
    assert f"user somebody on #{digest} ~aquiline:* " in made["redis.acl"]
    assert password.get_secret_value() not in made["redis.acl"]


@pytest.mark.parametrize(
    ("missing", "named"), [("AQUILINE_SECRETS_DIR", "AQUILINE_SECRETS_DIR"), ("AQUILINE_REDIS__USERNAME", "redis.username")]
)
def test_what_is_missing_is_named(missing: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("AQUILINE_REDIS__USERNAME", "somebody")
    monkeypatch.delenv(missing)
    with pytest.raises(SettingsError, match=named):
        _create()
