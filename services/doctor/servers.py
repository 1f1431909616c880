"""Verdicts on Redis, the engine, the tokenizer and what operators have said. Pure: nothing is asked here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from schemas import RunMode
from services.core.settings import Settings
from services.doctor.finding import Finding, fail, ok, warn
from services.fusion.prompt.capacity import fitting_window
from services.inference.engine import EngineInfo

_LEAST_REDIS: Final = (5, 0)
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_GIB: Final = 1024**3
_COPIES: Final = 2
"""Prefixes of a symbol that live at once: this epoch's, and the next one's under way."""


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What a Redis says: its version, memory limit in bytes (0 for none), what it evicts, and how long an answer took in ms."""

    version: str
    maxmemory: int
    policy: str
    round_trip_ms: float


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """The longest prompt that the settings make, and its prefix, in tokens."""

    tokens: int
    prefix_tokens: int


def redis_findings(settings: Settings, facts: RedisFacts) -> list[Finding]:
    """Return what is to be said of a Redis that answers."""
    found = [*_memory(facts), *_connection(settings, facts)]
    size = f"{facts.maxmemory / _GIB:.3g} GiB, {facts.policy}"
    return found or [ok("redis", f"version {facts.version}, {size}, answers in {facts.round_trip_ms:.1f} ms")]


def _memory(facts: RedisFacts) -> Iterator[Finding]:
    if facts.maxmemory == 0:
        yield fail(
            "redis",
            "maxmemory is not set, so that the cache grows until the machine is out of memory",
            "redis-cli config set maxmemory 2gb (and in redis.conf)",
        )
    if facts.policy == "noeviction":
        yield fail(
            "redis",
            "maxmemory-policy is noeviction: once it is full every write fails and every new block is a miss",
            "redis-cli config set maxmemory-policy allkeys-lru (and in redis.conf)",
        )


def _connection(settings: Settings, facts: RedisFacts) -> Iterator[Finding]:
    url = urlsplit(settings.redis.url)
    if _version(facts.version) < _LEAST_REDIS:
        yield fail("redis", f"version {facts.version} is too old", "install Redis 5 or later, or Valkey")
    if url.scheme == "redis" and settings.redis.password is not None and url.hostname not in _LOOPBACK:
        yield warn("redis", "the password travels in the clear", "use rediss:// and redis.ca_file")
    if facts.round_trip_ms > settings.redis.budget_ms / 2:
        yield warn(
            "redis",
            f"an answer took {facts.round_trip_ms:.0f} ms, and all of a decision may take redis.budget_ms = {settings.redis.budget_ms}",
            "bring Redis nearer to the worker, or give it less to do",
        )


def engine_findings(settings: Settings, info: EngineInfo, prompt: PromptFacts | None, symbols: int) -> list[Finding]:
    """Return what is to be said of an engine that answers; `prompt` is None when none could be rendered."""
    check = f"engine {info.name}"
    found = [*_source(check, settings, info)]
    if prompt is not None:
        found += [*_context(check, settings, info, prompt), *_capacity(check, settings, info, prompt, symbols)]
    context = f", context {info.context_tokens} tokens" if info.context_tokens else ""
    longest = f", longest prompt {prompt.tokens}" if prompt else ""
    return found or [ok(check, f"{info.model} ({info.source}){context}{longest}{_held(info)}")]


def _held(info: EngineInfo) -> str:
    return f", KV cache of {info.kv_capacity_tokens} tokens" if info.kv_capacity_tokens else ""


def _source(check: str, settings: Settings, info: EngineInfo) -> Iterator[Finding]:
    if info.source == "simulator" and settings.run_mode is RunMode.LIVE:
        yield fail(check, "is the simulator, which run mode live refuses", "set engine.urls to a real engine")
    if info.source == "llm" and settings.engine.kind == "sglang" and settings.engine.tokenizer_file is None:
        yield fail(
            check,
            f"serves {info.model}, and prompts are made with the simulator's tokenizer: the model would read noise",
            "set engine.tokenizer_file to the model's own tokenizer.json",
        )


def _context(check: str, settings: Settings, info: EngineInfo, prompt: PromptFacts) -> Iterator[Finding]:
    fusion = settings.fusion
    deep = bool(fusion.deep_every_bars or fusion.deep_on_move_atr is not None)
    answer = fusion.deep_max_new_tokens if deep else fusion.max_new_tokens
    needed = prompt.tokens + answer
    if info.context_tokens is not None and needed > info.context_tokens:
        yield fail(
            check,
            f"takes {info.context_tokens} tokens, and the longest prompt is {prompt.tokens} with up to {answer} of answer",
            f"lower fusion.window_bars ({fusion.window_bars}) or slow_window_bars ({fusion.slow_window_bars}), "
            f"or start the engine with a context of at least {needed}",
        )


def _capacity(check: str, settings: Settings, info: EngineInfo, prompt: PromptFacts, symbols: int) -> Iterator[Finding]:
    if info.kv_capacity_tokens is None or not symbols:
        return
    lanes = symbols * len(settings.fusion.trigger_interval_set)
    needed = lanes * prompt.prefix_tokens * (_COPIES if settings.fusion.prewarm else 1)
    # Several engines share the symbols out.
    needed = -(-needed // len(settings.engine.urls))
    if needed > info.kv_capacity_tokens:
        window = fitting_window(settings.fusion.window_bars, needed, info.kv_capacity_tokens)
        yield warn(
            check,
            f"its KV cache holds {info.kv_capacity_tokens} tokens, and the live prefixes of {symbols} symbols are about {needed}: "
            "hits collapse",
            f"fusion.window_bars = {window} would fit; or name fewer fusion.symbols, or add engines",
        )


def halt_findings(halted: str | None, symbols: Sequence[str]) -> list[Finding]:
    """Return what operators have said: `halted` is why everything is, `symbols` those halted by name."""
    if halted is not None:
        return [warn("control", f"everything is HALTED: {halted}", "when it is meant to run: `aquiline resume --reason ...`")]
    if symbols:
        named = ", ".join(symbols[:10]) + (f" and {len(symbols) - 10} more" if len(symbols) > 10 else "")  # noqa: PLR2004 - as shown
        return [warn("control", f"HALTED by name: {named}", "`aquiline resume SYMBOL --reason ...`")]
    return [ok("control", "ACTIVE")]


def instrument_findings(settings: Settings, known: Iterable[str], unusable: Mapping[str, str]) -> list[Finding]:
    """Return what is to be said of `known` symbols; `unusable` tells why some cannot be used."""
    names = set(known)
    found = [fail("instruments", f"{symbol} cannot be used: {why}", "publish it again, mended") for symbol, why in sorted(unusable.items())]
    if not names:
        found.append(
            fail(
                "instruments",
                "no instrument is known, so that every bar is dead-lettered as unknown_instrument",
                "publish one record a symbol on the topic `instruments` (docs/messages.md says how it looks)",
            )
        )
    if names and (absent := sorted(set(settings.fusion.symbols) - names)):
        found.append(
            fail("instruments", f"fusion.symbols names {', '.join(absent)}, of which nothing is known", "publish them, or drop them")
        )
    if len(names) > settings.fusion.max_symbols:
        found.append(
            fail(
                "instruments",
                f"{len(names)} are known and fusion.max_symbols is {settings.fusion.max_symbols}: the rest is dead-lettered",
                "raise it, or name the ones you mean in fusion.symbols",
            )
        )
    return found or [ok("instruments", f"{len(names)} known")]


def offset_findings(check: str, lag: int, lost: int, beyond: int, *, committed: bool, start_from: str) -> Finding:
    """Return what is to be said of a group: `lag` records to read, `lost` that were deleted unread, `beyond` the log's end."""
    if not committed:
        return ok(check, f"has committed nothing yet and will start from {start_from}")
    if lost or beyond:
        what = f"{lost} records were deleted before they were read" if lost else f"its offsets lie {beyond} beyond the end of the log"
        why = "lengthen retention.ms" if lost else "topics were made anew: change fusion.log_id too"
        return fail(
            check,
            f"{what}; the worker stops rather than skip them",
            f"{why}, then move the group (kafka-consumer-groups.sh --reset-offsets)",
        )
    return ok(check, f"{lag} records to read")


def skew_finding(skew_ms: int, limit_ms: int, how: str) -> Finding:
    """Return what is to be said of the clocks; `skew_ms` is this machine's less the broker's, as told by `how`."""
    if abs(skew_ms) <= limit_ms:
        return ok("clock", f"differs from the broker's by {skew_ms} ms at most ({how})")
    return fail(
        "clock",
        f"differs from the broker's by {skew_ms} ms ({how}), and fusion.max_skew_ms is {limit_ms}: signals are blocked as clock_skew",
        "run NTP (chrony) on both machines",
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
