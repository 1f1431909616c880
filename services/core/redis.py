"""Connects to Redis as the settings say: TLS, ACL user, or the in-process stand-in of the embedded default."""

from __future__ import annotations

from typing import Any, Final

import redis.asyncio as redis_async
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.core.settings import RedisSettings, SettingsError

_CONNECT_S: Final = 5.0
_READ_BYTES: Final = 262_144
"""What asyncio takes from a socket at a time, and more than a prompt of 32K tokens."""


def connect(settings: RedisSettings) -> redis_async.Redis | None:
    """Return a client whose values are bytes, None for `none://`; raise SettingsError when the stand-in is not installed.

    Concurrent commands take connections from a pool: with one shared connection they wait for each other's round trips, and with Redis
    1 ms away four callers get a third of the answers (`benchmarks/redis_clients.py`). A connection that turns out to be broken is replaced
    once, without a pause. Callers bound the whole answer. The timeout of connecting only ends attempts that no caller waits for: it is far
    above `redis.budget_ms`, as a process that computes for longer than the budget would lose its own connections. A timeout on each read
    and write as well would make a task of each write, and send it a turn of the loop later.
    """
    if settings.url == "none://":
        return None
    if settings.url == "memory://":
        try:
            from fakeredis import FakeAsyncRedis  # noqa: PLC0415 - an extra, for the embedded default alone
        except ImportError as error:
            raise SettingsError("redis.url = 'memory://' needs the extra 'demo': pip install 'aquiline[demo]'") from error
        fake: redis_async.Redis = FakeAsyncRedis()
        return fake
    tls: dict[str, Any] = {"ssl_ca_certs": str(settings.ca_file)} if settings.ca_file is not None else {}
    return redis_async.Redis.from_url(
        settings.url,
        username=settings.username,
        password=settings.password.get_secret_value() if settings.password else None,
        socket_connect_timeout=_CONNECT_S,
        socket_timeout=None,  # redis-py's own default is 5 s
        socket_read_size=_READ_BYTES,
        retry=Retry(NoBackoff(), retries=1),
        **tls,
    )
