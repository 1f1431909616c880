"""The Faust application's settings, and the topics that the scorer refuses to start on."""

from __future__ import annotations

import pytest
from faust.types.auth import AuthProtocol, SASLMechanism

from schemas import RunMode, Topic, topic_name
from services.core.bus import BusError, NewTopic
from services.core.bus.memory import MemoryBus
from services.core.clock import VirtualClock
from services.core.settings import BusSettings, ScoringSettings, Settings
from services.core.topic_admin import check_scoring_topics, wanted_topics
from services.scoring.faust_app import make_app

MODE = RunMode.SHADOW


def settings(**bus: object) -> Settings:
    return Settings(run_mode=MODE, bus=BusSettings.model_validate(bus), scoring=ScoringSettings(group="scorers"))


@pytest.mark.parametrize(("mode", "name"), [(RunMode.LIVE, "scorers"), (RunMode.SHADOW, "shadow.scorers")])
def test_each_run_mode_has_a_group_of_its_own(mode: RunMode, name: str) -> None:
    assert settings().model_copy(update={"run_mode": mode}).scoring_group == name


async def test_faust_serves_no_pages_makes_no_topics_and_waits_for_no_stream() -> None:
    conf = make_app(settings(url="kafka://one:9092,two:9093", instance_id="scorer-0")).conf
    assert [str(url) for url in conf.broker] == ["kafka://one:9092", "kafka://two:9093"]
    assert not any((conf.web_enabled, conf.web_tables_enabled, conf.topic_allow_declare, conf.stream_wait_empty))
    assert conf.topic_disable_leader
    assert conf.consumer_group_instance_id == "scorer-0"
    assert conf.broker_session_timeout <= conf.broker_request_timeout


async def test_faust_takes_none_of_its_settings_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEB_ENABLED", "TABLE_STANDBY_REPLICAS", "BROKER_SESSION_TIMEOUT", "APP_DATADIR"):
        monkeypatch.setenv(name, "1")
    conf = make_app(settings(session_timeout_ms=12_000)).conf
    assert (conf.web_enabled, conf.table_standby_replicas, conf.broker_session_timeout) == (False, 0, 12.0)


async def test_faust_logs_in_as_the_settings_say() -> None:
    sasl = {"security": "sasl_plaintext", "sasl_mechanism": "SCRAM-SHA-256", "username": "scorer", "password": "secret"}
    plain = make_app(settings(**sasl)).conf.broker_credentials
    assert plain is not None
    assert plain.protocol is AuthProtocol.SASL_PLAINTEXT
    assert plain.mechanism is SASLMechanism.SCRAM_SHA_256  # type: ignore[attr-defined]
    over_tls = make_app(settings(**sasl | {"security": "sasl_ssl"})).conf.broker_credentials
    assert over_tls is not None
    assert over_tls.protocol is AuthProtocol.SASL_SSL
    tls = make_app(settings(security="ssl")).conf.broker_credentials
    assert tls is not None
    assert tls.protocol is AuthProtocol.SSL
    assert make_app(settings()).conf.broker_credentials is None


async def on_topics(change: dict[Topic, NewTopic | None]) -> None:
    """Check topics that are as they should be, but for `change`: another one, or none."""
    bus = MemoryBus(VirtualClock())
    names = {topic_name(topic, MODE): found for topic, found in change.items()}
    admin = await bus.admin()
    wanted = [names.get(new.name, new) for new in wanted_topics(MODE, 4)]
    await admin.create([new for new in wanted if new is not None])
    await check_scoring_topics(bus, MODE)


async def test_topics_as_they_are_created_will_do() -> None:
    await on_topics({})


@pytest.mark.parametrize("topic", [Topic.STRATEGY_SIGNALS, Topic.SCORING_JUDGES, Topic.SIGNAL_OUTCOMES])
async def test_a_topic_that_does_not_exist_is_refused_by_name(topic: Topic) -> None:
    with pytest.raises(BusError, match=rf"{topic_name(topic, MODE)} do not exist .*; create them with `aquiline topics create"):
        await on_topics({topic: None})


@pytest.mark.parametrize("topic", [Topic.STRATEGY_SIGNALS, Topic.MARKET_FEATURES, Topic.SCORING_JUDGES])
async def test_inputs_and_tables_with_different_partition_counts_are_refused(topic: Topic) -> None:
    name = topic_name(topic, MODE)
    with pytest.raises(BusError, match=f"{name}: 3"):
        await on_topics({topic: NewTopic(name, 3, {"cleanup.policy": "compact"})})


async def test_a_changelog_that_is_not_compacted_is_refused() -> None:
    name = topic_name(Topic.SCORING_JUDGES, MODE)
    with pytest.raises(BusError, match="deletes the scorer's open signals"):
        await on_topics({Topic.SCORING_JUDGES: NewTopic(name, 4, {"cleanup.policy": "delete"})})
