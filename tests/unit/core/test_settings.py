"""Settings: several sources in a fixed order, unknown names refused, secrets kept, and a sentence for each thing wrong."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from schemas import RunMode
from services.core.fusion_settings import FusionSettings
from services.core.settings import Settings, SettingsError, load


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AQUILINE_")]:
        monkeypatch.delenv(name)


def _file(folder: Path, text: str) -> Path:
    file = folder / "aquiline.toml"
    file.write_text(text)
    return file


def test_defaults_hold_without_any_source() -> None:
    assert load().bus.url == "kafka://127.0.0.1:9092"


def test_a_file_is_read(tmp_path: Path) -> None:
    assert load(_file(tmp_path, "[fusion]\npermits = 7\n")).fusion.permits == 7


def test_a_file_is_found_through_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_CONFIG", str(_file(tmp_path, "[fusion]\npermits = 7\n")))
    assert load().fusion.permits == 7


def test_options_win_over_variables_and_those_over_secret_files_and_those_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    monkeypatch.setenv("AQUILINE_SECRETS_DIR", str(secrets))
    file = _file(tmp_path, '[bus]\nusername = "file"\n')
    seen = [load(file).bus.username]
    (secrets / "aquiline_bus__username").write_text("secret")
    seen.append(load(file).bus.username)
    monkeypatch.setenv("AQUILINE_BUS__USERNAME", "variable")
    seen.append(load(file).bus.username)
    seen.append(load(file, {"bus": {"username": "option"}}).bus.username)
    assert seen == ["file", "secret", "variable", "option"]


def test_one_source_may_set_one_key_of_a_table_and_another_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_FUSION__PERMITS", "9")
    fusion = load(_file(tmp_path, "[fusion]\ndeep_permits = 2\n")).fusion
    assert (fusion.permits, fusion.deep_permits) == (9, 2)


def test_lists_and_tables_in_variables_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_FUSION__INTERVALS", '["5m", "1h"]')
    assert load().fusion.intervals == ["5m", "1h"]


@pytest.mark.parametrize("table", ["", "[fusion]\n"])
def test_an_unknown_key_is_refused_by_its_name(tmp_path: Path, table: str) -> None:
    with pytest.raises(SettingsError, match="permit: no such setting"):
        load(_file(tmp_path, f"{table}permit = 3\n"))


def test_the_nearest_key_is_told_with_its_section(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"fusion\.permit: no such setting; did you mean fusion\.permits\?"):
        load(_file(tmp_path, "[fusion]\npermit = 3\n"))


def test_what_is_wrong_with_several_settings_together_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^fusion\.window_bars \(10\) must be above fusion\.epoch_slots \(64\)"):
        load(_file(tmp_path, "[fusion]\nwindow_bars = 10\nepoch_slots = 64\n"))


def test_an_unknown_table_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="fusoin: no such setting"):
        load(_file(tmp_path, "[fusoin]\npermits = 3\n"))


def test_an_unknown_variable_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_RUN_MOD", "live")
    with pytest.raises(SettingsError, match=r"AQUILINE_RUN_MOD names no setting; did you mean AQUILINE_RUN_MODE\?"):
        load()


def test_one_underscore_for_two_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_HTTP_PORT", "0")
    with pytest.raises(SettingsError, match=r"did you mean AQUILINE_HTTP__PORT\?"):
        load()


def test_an_unknown_key_in_a_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_FUSION__PERMIT", "3")
    with pytest.raises(SettingsError, match=r"fusion\.permit: no such setting"):
        load()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml' does not exist"):
        load(tmp_path / "absent.toml")


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"settings cannot be read .*aquiline\.toml"):
        load(_file(tmp_path, "permits: 3"))


def test_secrets_are_read_as_kubernetes_mounts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file is a link into `..data`, a link to the folder of the newest version; what is no setting stands beside them."""
    version = tmp_path / "..2026_11_27_19_00_00.123456789"
    version.mkdir()
    (tmp_path / "..data").symlink_to(version.name)
    for name, text in {
        "aquiline_bus__username": "joe",
        "aquiline_bus__password": "hunter2\n",
        "ca.pem": "-----BEGIN CERTIFICATE-----",
    }.items():
        (version / name).write_text(text)
        (tmp_path / name).symlink_to(f"..data/{name}")
    monkeypatch.setenv("AQUILINE_SECRETS_DIR", str(tmp_path))
    bus = load().bus
    assert bus.password is not None
    assert (bus.username, bus.password.get_secret_value()) == ("joe", "hunter2")


def test_a_folder_of_secrets_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_SECRETS_DIR", "/nowhere/secrets")
    with pytest.raises(SettingsError, match="'/nowhere/secrets', which is not a folder"):
        load()


def test_a_secret_is_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_BUS__PASSWORD", "hunter2")
    settings = load()
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.bus.password is not None
    assert settings.bus.password.get_secret_value() == "hunter2"


def test_a_wrong_secret_is_not_printed_either() -> None:
    with pytest.raises(SettingsError) as caught:
        load(overrides={"bus": {"password": {"value": "hunter2"}}})
    assert "bus.password" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_wrong_value_is_told_with_its_key_and_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"fusion\.permits = 0: .*greater than 0"):
        load(_file(tmp_path, "[fusion]\npermits = 0\n"))


def test_every_wrong_value_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"(?=.*fusion\.permits = 0)(?=.*redis\.ttl_s = -1)"):
        load(_file(tmp_path, "[fusion]\npermits = 0\n[redis]\nttl_s = -1\n"))


@pytest.mark.parametrize("url", ["amqp://host", "kafka://user:password@host:9092", "kafka://", "memory://x"])
def test_a_bus_url_of_another_kind_or_with_credentials_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"bus\.url"):
        load(overrides={"bus": {"url": url}})


@pytest.mark.parametrize(
    ("fusion", "sentence"),
    [
        ({"intervals": ["1h", "1m"]}, "must be distinct and go from the fastest to the slowest"),
        ({"intervals": ["1m", "60s"]}, "must be distinct"),
        ({"trigger_intervals": ["2m"]}, r"fusion.trigger_intervals names \['2m'\]"),
        ({"window_bars": 64, "epoch_slots": 64}, r"fusion.window_bars \(64\) must be above fusion.epoch_slots \(64\)"),
        ({"producer_timeout_ms": 500}, r"fusion.producer_timeout_ms \(500\) must be below fusion.delivery_reserve_ms \(500\)"),
        ({"min_bars": 300}, r"fusion.min_bars \(300\) must not be above fusion.window_bars \(256\)"),
        ({"entry_validity_ms": {"1m": 400}}, r"fusion.entry_validity_ms of 1m \(400\) must be above"),
        ({"drain_ms": 60_000}, r"bus.rebalance_timeout_ms \(60000\) must be above fusion.drain_ms \(60000\)"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_both_values(fusion: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        load(overrides={"fusion": fusion})


def test_the_fastest_interval_triggers_where_none_is_named() -> None:
    assert FusionSettings().trigger_interval_set == {"1m"}
    assert FusionSettings(trigger_intervals=["1h", "15m"]).trigger_interval_set == {"1h", "15m"}


def test_a_signals_validity_is_a_twentieth_of_the_interval_unless_it_is_given() -> None:
    fusion = FusionSettings(entry_validity_ms={"15m": 10_000})
    assert [fusion.entry_validity(interval) for interval in ("10s", "1m", "15m", "1h")] == [2_000, 3_000, 10_000, 180_000]


def test_live_and_shadow_on_one_cluster_are_groups_of_their_own() -> None:
    groups = {mode: Settings(run_mode=mode).fusion_group for mode in RunMode}
    assert groups[RunMode.LIVE] == "aquiline-fusion"
    assert groups[RunMode.SHADOW] == "shadow.aquiline-fusion"
    assert len(set(groups.values())) == len(RunMode)


def test_mode_flash_has_every_call_ask_for_log_probabilities() -> None:
    assert not load(None, {}).engine.scores
    assert load(None, {"fusion": {"mode": "flash"}}).engine.scores
    assert load(None, {"engine": {"scores": True}}).engine.scores
