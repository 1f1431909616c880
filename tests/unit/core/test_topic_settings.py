"""Topics by the user's own names: each has one, in every run mode, and none is another's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import RunMode, Topic, topic_name
from services.core.settings import SettingsError, load
from services.core.topic_settings import TopicSettings


@given(
    st.dictionaries(st.sampled_from(list(Topic)), st.from_regex(r"\Adesk[A-Za-z0-9._-]{0,20}\Z"), max_size=6).filter(
        lambda names: len(set(names.values())) == len(names)
    )
)
def test_every_topic_of_every_run_mode_comes_back_from_the_brokers_name(names: dict[Topic, str]) -> None:
    settings = TopicSettings(names=names)
    ours = [topic_name(topic, mode) for topic in Topic for mode in RunMode]
    assert [settings.of_broker(settings.on_broker(name)) for name in ours] == ours
    assert len({settings.on_broker(name) for name in set(ours)}) == len(set(ours))


def test_the_prefix_of_the_run_mode_stays() -> None:
    settings = TopicSettings(names={Topic.MARKET_FEATURES: "desk.bars"})
    assert settings.on_broker("market-features") == "desk.bars"
    assert settings.on_broker("demo.market-features") == "demo.desk.bars"
    assert settings.on_broker("shadow.strategy-signals") == "shadow.strategy-signals"
    assert settings.of_broker("replay.desk.bars") == "replay.market-features"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"market-features": "vision-features"}, "which is that of vision-features"),
        ({"market-features": "bars", "candles": "bars"}, "give each topic its own"),
        ({"control": "shadow.control"}, "'shadow' is the prefix of a run mode"),
        ({"control": "a b"}, "String should match pattern"),
        ({"control": "..."}, "String should match pattern"),
        ({"bars": "x"}, "Input should be 'candles'"),
    ],
)
def test_names_that_cannot_be_kept_apart_are_refused(names: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TopicSettings.model_validate({"names": names})


def test_two_topics_may_change_names() -> None:
    settings = TopicSettings(names={Topic.CANDLES: "market-features", Topic.MARKET_FEATURES: "candles"})
    assert (settings.on_broker("candles"), settings.of_broker("candles")) == ("market-features", "market-features")


def test_names_come_from_a_variable_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AQUILINE_TOPICS__NAMES", '{"notes": "desk.news"}')
    assert load().topics.on_broker("notes") == "desk.news"
    monkeypatch.setenv("AQUILINE_TOPICS__NAMES", '{"nots": "desk.news"}')
    with pytest.raises(SettingsError, match="nots"):
        load()
