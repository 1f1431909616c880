"""The settings' reference and example file: up to date, complete, and telling the same as the settings themselves."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from schemas import RunMode
from services.core.generated_files import ROOT, drift
from services.core.settings import load
from services.core.settings_reference import EXAMPLE, example, files, main, page, tables, to_toml, variable


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AQUILINE_CONFIG", "AQUILINE_SECRETS_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_the_generated_files_are_those_that_the_settings_give_today() -> None:
    assert drift(files()) == ""
    assert main(["--check"]) == 0


def test_files_that_are_missing_are_told_as_a_diff(tmp_path: Path) -> None:
    assert "+run_mode = " in drift(files(), tmp_path)


def test_the_page_has_every_key_with_its_variable_and_a_meaning() -> None:
    text = page()
    for table, _, keys in tables():
        for key, field in keys.items():
            assert f"| `{variable(table, key)}` |" in text
            assert field.description, f"{table}.{key} has no description"


def test_the_example_file_says_what_holds_without_it() -> None:
    assert load(ROOT / EXAMPLE).model_dump() == load().model_dump()


def test_the_example_file_names_keys_without_a_default_too() -> None:
    assert "\n# password =\n" in example()


def test_variables_are_named_after_table_and_key() -> None:
    assert variable("bus", "url") == "AQUILINE_BUS__URL"
    assert variable("", "run_mode") == "AQUILINE_RUN_MODE"


@pytest.mark.parametrize("value", [True, 3, 2.5, 'quo"te\\ \n tab\t ü', ["1m", "1h"], {"1m": ["15m"], "odd key": []}, {}, [], RunMode.DEMO])
def test_values_come_back_from_toml(value: object) -> None:
    assert tomllib.loads(f"x = {to_toml(value)}")["x"] == value


def test_what_toml_cannot_hold_is_refused_with_its_value() -> None:
    with pytest.raises(TypeError, match="a NoneType \\(None\\) cannot be written as TOML"):
        to_toml(None)
