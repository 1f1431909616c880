"""The doctor's verdicts on topics: those of `aquiline topics create` are well; each thing that is not is named, with its fix."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import RunMode, Topic, topic_name
from services.core.bus import TopicInfo
from services.core.calendar import SessionCalendar
from services.core.fusion_settings import FusionSettings
from services.core.settings import Settings
from services.core.table_inputs import table_specs
from services.core.topic_admin import INPUTS, kept_for, wanted_topics
from services.doctor.finding import Finding
from services.doctor.topic_findings import TopicFacts, look_back, partitioner_finding, topic_findings
from services.fusion.state.book import kept_bars

DAY_MS = 86_400_000
NOW_MS = 1_763_424_000_000
LIVE = Settings(run_mode=RunMode.LIVE)


def as_created(run_mode: RunMode = RunMode.LIVE, replication: int = 3, input_days: int = 365) -> dict[str, TopicInfo]:
    wanted = wanted_topics(run_mode, 12, replication, kept_for(INPUTS, input_days))
    return {new.name: TopicInfo(new.name, new.partitions, new.config) for new in wanted}


def facts(infos: dict[str, TopicInfo], *, copies: int = 3, in_sync: int = 3) -> TopicFacts:
    return TopicFacts(infos, 15 * DAY_MS, dict.fromkeys(infos, copies), dict.fromkeys(infos, in_sync))


def verdict(found: list[Finding], topic: Topic) -> list[Finding]:
    return [one for one in found if one.check == f"topic {topic_name(topic, RunMode.LIVE)}"]


def test_topics_as_created_are_well() -> None:
    found = topic_findings(LIVE, facts(as_created()))
    assert {one.level for one in found} == {"ok"}
    assert {one.check for one in found} == {f"topic {topic_name(topic, RunMode.LIVE)}" for topic in Topic} | {"partitions"}


@pytest.mark.parametrize("topic", list(Topic))
def test_a_topic_that_does_not_exist_is_named(topic: Topic) -> None:
    infos = as_created()
    del infos[topic_name(topic, RunMode.LIVE)]
    (one,) = verdict(topic_findings(LIVE, facts(infos)), topic)
    if topic in table_specs():
        assert (one.level, "is optional" in one.sentence) == ("skipped", True)
    else:
        assert (one.level, "aquiline topics create" in one.fix) == ("fail", True)


@pytest.mark.parametrize("topic", [Topic.NOTES, Topic.POSITIONS])
def test_an_optional_topic_with_several_partitions_is_named(topic: Topic) -> None:
    infos = as_created()
    name = topic_name(topic, RunMode.LIVE)
    infos[name] = replace(infos[name], partitions=12)
    (one,) = verdict(topic_findings(LIVE, facts(infos)), topic)
    assert one.level == "fail"
    assert "has 12 partitions and must have 1" in one.sentence


@pytest.mark.parametrize(
    ("topic", "key", "value", "level", "said"),
    [
        (Topic.CONTROL, "cleanup.policy", "delete", "fail", "a halt ends by itself"),
        (Topic.INSTRUMENTS, "cleanup.policy", "delete", "fail", "must stay"),
        (Topic.INSTRUMENTS, "cleanup.policy", "compact,delete", "fail", "must stay"),
        (Topic.MARKET_FEATURES, "cleanup.policy", "compact", "fail", "all but the last record"),
        (Topic.MARKET_FEATURES, "retention.ms", str(14 * DAY_MS), "fail", "rebuilding a book needs 15 days"),
        (Topic.VISION_FEATURES, "retention.ms", str(DAY_MS), "fail", "rebuilding a book needs 15 days"),
        (Topic.MARKET_FEATURES, "retention.ms", str(364 * DAY_MS), "warn", "cannot be verified"),
        (Topic.STRATEGY_SIGNALS, "retention.ms", "3600000", "fail", "to know which signals are open"),
        (Topic.SIGNAL_AUDIT, "retention.ms", "3600000", "fail", "to know which signals are open"),
        (Topic.INSTRUMENT_EVENTS, "retention.ms", str(365 * DAY_MS), "fail", "splits need unlimited retention"),
        (Topic.NOTES, "retention.ms", str(30 * DAY_MS), "fail", "a blackout may be announced 60 days ahead"),
        (Topic.POSITIONS, "cleanup.policy", "delete", "fail", "must stay"),
        (Topic.SIGNAL_AUDIT, "retention.bytes", "1000000", "warn", "before retention.ms"),
        (Topic.VISION_FEATURES, "message.timestamp.type", "CreateTime", "fail", "producers' clocks"),
        (Topic.SIGNAL_AUDIT, "max.message.bytes", "100000", "fail", "would never finish"),
        (Topic.DEAD_LETTERS, "max.message.bytes", "1048588", "fail", "holds the original record and headers"),
        (Topic.SIGNAL_AUDIT, "unclean.leader.election.enable", "true", "fail", "a replica that lags may become leader"),
        (Topic.CONTROL, "min.insync.replicas", "1", "warn", "may lose records"),
        (Topic.CONTROL, "min.insync.replicas", "4", "fail", "nothing can be appended"),
    ],
)
def test_each_setting_that_breaks_a_promise_is_named_with_its_fix(topic: Topic, key: str, value: str, level: str, said: str) -> None:
    infos = as_created()
    name = topic_name(topic, RunMode.LIVE)
    infos[name] = replace(infos[name], config={**infos[name].config, key: value})
    found = topic_findings(LIVE, facts(infos))
    (one,) = verdict(found, topic)
    assert (one.level, said in one.sentence, bool(one.fix)) == (level, True, True), one
    assert [other for other in found if other.level != "ok"] == [one]


def test_partition_counts_that_differ_are_named() -> None:
    infos = as_created()
    infos["vision-features"] = replace(infos["vision-features"], partitions=6)
    (one,) = [one for one in topic_findings(LIVE, facts(infos)) if one.level == "fail"]
    assert "vision-features 6" in one.sentence


def test_a_changelog_of_the_scorer_with_another_partition_count_is_named() -> None:
    infos = as_created()
    infos["scoring-judges-changelog"] = replace(infos["scoring-judges-changelog"], partitions=6)
    (one,) = [one for one in topic_findings(LIVE, facts(infos)) if one.check == "partitions"]
    assert (one.level, "scoring-judges-changelog 6" in one.sentence) == ("fail", True)


def test_a_symbol_on_two_partitions_is_named_with_the_fix() -> None:
    assert partitioner_finding({"A.XNAS": {0}, "B.XNAS": {1}}, 500).level == "ok"
    assert partitioner_finding({}, 500).level == "skipped"
    found = partitioner_finding({"A.XNAS": {0, 2}, "B.XNAS": {1}}, 500)
    assert found.level == "fail"
    assert "1 of 2 symbols" in found.sentence
    assert "A.XNAS on [0, 2]" in found.sentence
    assert "one partitioner" in found.fix


def test_few_copies_are_a_warning_in_live_alone() -> None:
    lonely = {"copies": 1, "in_sync": 1}
    assert {one.level for one in topic_findings(LIVE, facts(as_created(replication=1), **lonely))} == {"warn", "ok"}
    shadow = topic_findings(Settings(run_mode=RunMode.SHADOW), facts(as_created(RunMode.SHADOW, 1), **lonely))
    assert {one.level for one in shadow} == {"ok"}


def test_inputs_that_go_before_the_audit_are_a_warning_in_live_alone() -> None:
    found = topic_findings(LIVE, facts(as_created(input_days=90)))
    assert {one.check for one in found if one.level == "warn"} == {"topic market-features", "topic vision-features"}
    assert all(one.fix.endswith("retention.ms=31536000000") for one in found if one.level == "warn")
    shadow = topic_findings(Settings(run_mode=RunMode.SHADOW), facts(as_created(RunMode.SHADOW, input_days=90)))
    assert {one.level for one in shadow} == {"ok"}


def test_too_few_copies_in_sync_are_told() -> None:
    found = topic_findings(LIVE, facts(as_created(), in_sync=1))
    assert all(
        "nothing can be appended" in one.sentence and one.fix == "restart the missing brokers" for one in found if one.level == "fail"
    )
    assert {one.level for one in found} == {"fail", "ok"}


@settings(deadline=None)  # the first use of a calendar takes seconds
@given(st.sampled_from(["XNYS", "24x7"]), st.integers(1, 400), st.sampled_from(["1m", "15m", "1h", "1d"]))
def test_the_look_back_holds_as_many_bars_as_a_book_keeps(calendar: str, window: int, slowest: str) -> None:
    intervals = ["1m"] if slowest == "1m" else ["1m", slowest]
    fusion = FusionSettings(intervals=intervals, slow_window_bars=window)
    span_ms, _ = look_back(fusion, [calendar], NOW_MS)
    for interval in intervals:
        assert SessionCalendar.of(calendar).slots_between(interval, NOW_MS - span_ms, NOW_MS) >= kept_bars(fusion, interval)


def test_calendars_that_nobody_knows_are_left_out() -> None:
    fusion = FusionSettings()
    assert look_back(fusion, ["NOWHERE"], NOW_MS) == look_back(fusion, [], NOW_MS) == look_back(fusion, ["24x7"], NOW_MS)
