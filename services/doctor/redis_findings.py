"""Findings on Redis: what the server reports against what the settings need. Pure: this module asks nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from services.core.settings import Settings
from services.doctor.finding import Finding, fail, ok, warn

_LEAST_REDIS: Final = (5, 0)
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})
_GIB: Final = 1024**3


@dataclass(frozen=True, slots=True)
class RedisFacts:
    """What the server reports: version, memory limit in bytes (0 for none), eviction policy, and a round trip in ms."""

    version: str
    maxmemory: int
    policy: str
    round_trip_ms: float


def redis_findings(settings: Settings, facts: RedisFacts) -> list[Finding]:
    """Return the findings on a Redis that answers."""
    found = [*_memory(facts), *_connection(settings, facts)]
    size = f"{facts.maxmemory / _GIB:.3g} GiB, {facts.policy}"
    return found or [ok("redis", f"version {facts.version}, {size}, answers in {facts.round_trip_ms:.1f} ms")]


def _memory(facts: RedisFacts) -> Iterator[Finding]:
    if facts.maxmemory == 0:
        yield fail(
            "redis",
            "maxmemory is not set: the cache grows until the machine is out of memory",
            "redis-cli config set maxmemory 2gb (and in redis.conf)",
        )
    if facts.policy == "noeviction":
        yield fail(
            "redis",
            "maxmemory-policy is noeviction: once memory is full every write fails, and every new block is a miss",
            "redis-cli config set maxmemory-policy allkeys-lru (and in redis.conf)",
        )


def _connection(settings: Settings, facts: RedisFacts) -> Iterator[Finding]:
    url = urlsplit(settings.redis.url)
    if _version(facts.version) < _LEAST_REDIS:
        yield fail("redis", f"version {facts.version} is too old", "install Redis 5 or later, or Valkey")
    if url.scheme == "redis" and settings.redis.password is not None and url.hostname not in _LOOPBACK:
        yield warn("redis", "the password is sent in plaintext", "use rediss:// and redis.ca_file")
    if facts.round_trip_ms > settings.redis.budget_ms / 2:
        yield warn(
            "redis",
            f"a round trip takes {facts.round_trip_ms:.0f} ms, and redis.budget_ms allows {settings.redis.budget_ms} ms a decision",
            "place Redis closer to the workers, or reduce its load",
        )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
