"""A consumer of signals that may be copied: it acts on each signal once, while it is valid, and never on one that was withdrawn.

`SignalInbox` holds the rules and is pure; `follow` reads a topic of Kafka through it, with TLS and log-in as `security` reads them. Give
orders the signal's `signal_id` as client order id, so that a broker refuses the second one when this process was killed between an order
and its commit.
"""

from __future__ import annotations

import os
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from uuid import UUID

from aiokafka import AIOKafkaConsumer
from pydantic import ValidationError

from schemas import Action, Cancel, RunMode, Signal, decode_signal_message

_MAX_KEPT: Final = 100_000
"""Ids that are remembered: at ten signals a second nearly three hours, and a redelivered older one has expired."""
_TLS: Final = frozenset({"ssl", "sasl_ssl"})
_LOG_IN: Final = frozenset({"sasl_plaintext", "sasl_ssl"})
_TO_ACT_ON: Final = frozenset({Action.BUY, Action.SELL, Action.EXIT})


@dataclass(frozen=True, slots=True)
class Act:
    """Act on this signal now."""

    signal: Signal


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Withdraw what was ordered on this signal and has not been filled."""

    signal: Signal
    reason: str


@dataclass(frozen=True, slots=True)
class Ignored:
    """Do nothing; `why` says for which reason."""

    why: Literal["malformed", "other_mode", "duplicate", "cancelled", "expired", "nothing_to_do", "unknown"]


Step = Act | Withdraw | Ignored


class SignalInbox:
    """Decides what to do about each record of `strategy-signals`."""

    def __init__(self, acted_on: Iterable[UUID] = (), run_mode: RunMode = RunMode.LIVE) -> None:
        """Take the ids of orders that are known already, from before a restart; of messages only those of `run_mode` count."""
        self._run_mode = run_mode
        self._seen: OrderedDict[UUID, Signal | None] = OrderedDict.fromkeys(acted_on)
        """Every id that has come, with its signal where it was acted on."""
        self._cancelled: OrderedDict[UUID, None] = OrderedDict()

    def take(self, value: bytes | None, now_ms: int) -> Step:
        """Return what to do about a record, at a time in milliseconds since 1970."""
        try:
            message = decode_signal_message(value or b"")
        except ValidationError:
            return Ignored("malformed")
        if message.run_mode is not self._run_mode:
            return Ignored("other_mode")
        return self._cancel(message) if isinstance(message, Cancel) else self._signal(message, now_ms)

    def _signal(self, signal: Signal, now_ms: int) -> Step:
        if signal.signal_id in self._seen:
            return Ignored("duplicate")  # the first body of an id counts
        self._remember(signal.signal_id, None)
        if signal.signal_id in self._cancelled:
            return Ignored("cancelled")
        if signal.action not in _TO_ACT_ON:
            return Ignored("nothing_to_do")
        if now_ms > signal.valid_until_ms:
            return Ignored("expired")
        self._seen[signal.signal_id] = signal
        return Act(signal)

    def _cancel(self, cancel: Cancel) -> Step:
        known = cancel.signal_id in self._cancelled
        self._cancelled[cancel.signal_id] = None
        if len(self._cancelled) > _MAX_KEPT:
            self._cancelled.popitem(last=False)
        signal = self._seen.get(cancel.signal_id)
        if signal is None:
            return Ignored("duplicate" if known else "unknown")
        self._seen[cancel.signal_id] = None
        return Withdraw(signal, cancel.reason.value)

    def _remember(self, signal_id: UUID, signal: Signal | None) -> None:
        self._seen[signal_id] = signal
        if len(self._seen) > _MAX_KEPT:
            self._seen.popitem(last=False)


def security(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return aiokafka's arguments for TLS and log-in, from the variables and secret files that Aquiline's services read.

    `AQUILINE_BUS__` with SECURITY (`plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`), CA_FILE, CERT_FILE, KEY_FILE, SASL_MECHANISM
    (`SCRAM-SHA-512` where not given), USERNAME and PASSWORD; instead of a variable, a file such as `aquiline_bus__password` in the folder
    AQUILINE_SECRETS_DIR. Raises ValueError naming the variable.
    """

    def given(name: str) -> str | None:
        variable, folder = f"AQUILINE_BUS__{name}", environment.get("AQUILINE_SECRETS_DIR")
        secret = None if folder is None else Path(folder) / variable.lower()
        return environment.get(variable) or (secret.read_text().strip() if secret is not None and secret.is_file() else None)

    protocol = given("SECURITY") or "plaintext"
    if protocol not in {"plaintext", *_TLS, *_LOG_IN}:
        raise ValueError(f"AQUILINE_BUS__SECURITY is {protocol!r}; expected plaintext, ssl, sasl_plaintext or sasl_ssl")
    arguments: dict[str, Any] = {"security_protocol": protocol.upper()}
    if protocol in _TLS:
        arguments["ssl_context"] = _tls(given("CA_FILE"), given("CERT_FILE"), given("KEY_FILE"))
    if protocol in _LOG_IN:
        username, password = given("USERNAME"), given("PASSWORD")
        if username is None or password is None:
            raise ValueError(f"AQUILINE_BUS__SECURITY {protocol} needs AQUILINE_BUS__USERNAME and AQUILINE_BUS__PASSWORD")
        arguments |= {
            "sasl_mechanism": given("SASL_MECHANISM") or "SCRAM-SHA-512",
            "sasl_plain_username": username,
            "sasl_plain_password": password,
        }
    return arguments


def _tls(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    if (cert_file is None) != (key_file is None):
        raise ValueError("AQUILINE_BUS__CERT_FILE and AQUILINE_BUS__KEY_FILE go together: set both for mutual TLS, or neither")
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file is not None:
            context.load_cert_chain(cert_file, key_file)
    except OSError as error:  # ssl.SSLError is one
        files = ", ".join(file for file in (ca_file, cert_file, key_file) if file)
        raise ValueError(f"a certificate or key cannot be read ({error}); look at {files}") from error
    return context


async def follow(bootstrap: str, topic: str, group: str, inbox: SignalInbox) -> AsyncGenerator[Act | Withdraw, None]:
    """Yield what to do about the records of a topic, for ever; a record is committed when the next one is asked for.

    A step that raises is therefore read again after a restart, and ends `duplicate` or `expired` where it was done. Raises ValueError
    when the variables that `security` reads cannot be used.
    """
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        **security(),
    )
    await consumer.start()
    try:
        async for record in consumer:
            step = inbox.take(record.value, time.time_ns() // 1_000_000)
            if not isinstance(step, Ignored):
                yield step
            await consumer.commit()
    finally:
        await consumer.stop()
