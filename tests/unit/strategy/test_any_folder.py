"""Whatever stands in a strategy's files, it is read into a strategy that can be hashed, or refused in sentences."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from services.core.settings import SettingsError, load
from services.fusion.prompt.version import version_of
from services.strategy.folder import INSTRUCTIONS, TEMPLATE, TOML, StrategyError, read

VALUES: dict[str, Any] = tomllib.loads((TEMPLATE / TOML).read_text().replace('"NAME"', '"momentum"'))
TEXT = (TEMPLATE / INSTRUCTIONS).read_text()


def paths(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*before, key)
        yield from paths(inner, (*before, key))


NUMBERS = [-1, 0, 1, 10**4, 2**53, 2**63, 10**30, 0.5, -0.0, 1e308, float("inf"), float("nan")]
TABLES: list[Any] = [[], {}, [[]], ["close", "close"], {"feature": "x"}, {"1m": 1}, {"0m": 1}, {"99999999w": 1}, [{"names": []}]]
ODD = st.one_of(
    st.sampled_from([None, True, "", "1", "1m", "close", "x" * 400, *NUMBERS, *TABLES]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\x7f"), max_size=20),
    st.integers(),
)


def _refused(error: StrategyError | SettingsError, folder: Path) -> None:
    said = str(error)
    assert said
    assert "errors.pydantic.dev" not in said
    assert str(folder) in said or "fusion." in said


@given(st.lists(st.tuples(st.sampled_from(list(paths(VALUES))), ODD), min_size=1, max_size=3))
def test_any_value_in_any_place_makes_a_strategy_or_a_sentence(changes: list[tuple[tuple[Any, ...], Any]]) -> None:
    values = copy.deepcopy(VALUES)
    for (*way, last), odd in changes:
        try:
            held: Any = values
            for key in way:
                held = held[key]
            if odd is None:
                del held[last]
            else:
                held[last] = odd
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / TOML).write_text(tomlkit.dumps(values))
        (folder / INSTRUCTIONS).write_text(TEXT)
        try:
            strategy = read(folder)
            settings = load(None, {"fusion": {"strategy": str(folder)}})
        except (StrategyError, SettingsError) as error:
            _refused(error, folder)
            return
        assert version_of(settings.fusion.strategy).startswith(strategy.name)
        assert settings.model_validate(settings.model_dump(mode="json")) == settings, "an exported log carries it whole"


@given(st.sampled_from([TOML, INSTRUCTIONS]), st.integers(0, 3_000), st.binary(max_size=12), st.integers(0, 12))
def test_any_bytes_in_any_place_make_a_strategy_or_a_sentence(name: str, place: int, odd: bytes, cut: int) -> None:
    with TemporaryDirectory() as made:
        folder = Path(made)
        (folder / TOML).write_text(tomlkit.dumps(VALUES))
        (folder / INSTRUCTIONS).write_text(TEXT)
        held = (folder / name).read_bytes()
        (folder / name).write_bytes(held[:place] + odd + held[place + cut :])
        try:
            assert read(folder).hash
        except StrategyError as error:
            _refused(error, folder)
