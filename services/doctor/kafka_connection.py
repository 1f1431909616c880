"""Connects to Kafka step by step (name, port, TLS, log-in), so that the first step that fails can be named."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from typing import Final

from services.core.bus import BusError
from services.core.bus.kafka_client import Connection
from services.core.bus.kafka_cluster import ClusterState, read_cluster_state
from services.core.settings import BusSettings
from services.doctor.finding import Finding, fail, ok

_CHECK: Final = "kafka"
_STEP_S: Final = 5.0


async def check_connection(settings: BusSettings, group: str) -> tuple[Finding, ClusterState | None]:
    """Return the finding, and the state of the cluster; None when it cannot be reached."""
    try:
        context = Connection.from_settings(settings).arguments.get("ssl_context")
    except BusError as error:
        return fail(_CHECK, str(error), "correct bus.* in the settings"), None
    addresses = settings.url.removeprefix("kafka://").split(",")
    failures = [await _knock(address, context) for address in addresses]
    open_at = [address for address, failure in zip(addresses, failures, strict=True) if failure is None]
    if not open_at:
        return next(failure for failure in failures if failure is not None), None
    try:
        found = await read_cluster_state(settings, group)
    except BusError as error:
        return await _refused(settings, open_at[0], error), None
    brokers = f"{found.brokers} broker{'s' if found.brokers > 1 else ''}"
    return ok(_CHECK, f"{brokers} at {', '.join(open_at)}, security {settings.security}"), found


async def _knock(address: str, context: ssl.SSLContext | None) -> Finding | None:
    """Return the finding of a failed connection to `address`, None when it succeeds."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        return fail(_CHECK, f"bus.url names {address!r}, which is not host:port", "write it as kafka://host:port[,host:port]")
    try:
        await _connect(host, int(port), context)
    except OSError as error:  # TLS and time-outs are among them
        return fail(_CHECK, *_explained(address, error))
    return None


def _explained(address: str, error: OSError) -> tuple[str, str]:
    """Return what went wrong, and how to fix it."""
    match error:
        case socket.gaierror():
            return f"the host name in {address!r} cannot be resolved ({error.strerror})", "correct bus.url, or the name service"
        case ssl.SSLCertVerificationError():
            return (
                f"the certificate of {address} fails verification: {error.verify_message}",
                "set bus.ca_file to the PEM file of the authority that signed it, and use the certificate's host name in bus.url",
            )
        case ssl.SSLError():
            return (
                f"the TLS handshake with {address} failed ({error.reason})",
                "the listener may be plaintext (bus.security without ssl), or require a client certificate (bus.cert_file, bus.key_file)",
            )
        case TimeoutError():
            return f"{address} does not answer within {_STEP_S:.0f} s", "check host, port and firewall"
        case _:
            return (
                f"{address} refuses connections ({os.strerror(error.errno) if error.errno else error})",
                "check bus.url, and that the broker is running",
            )


async def _connect(host: str, port: int, context: ssl.SSLContext | None) -> None:
    async with asyncio.timeout(_STEP_S):
        _, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.close()
    with contextlib.suppress(OSError):
        async with asyncio.timeout(_STEP_S):
            await writer.wait_closed()


async def _refused(settings: BusSettings, address: str, error: BusError) -> Finding:
    """Return the finding for a broker that accepts connections and refuses requests."""
    if settings.security in {"plaintext", "sasl_plaintext"} and await _speaks_tls(address):
        wanted = "ssl" if settings.security == "plaintext" else "sasl_ssl"
        return fail(
            _CHECK,
            f"{address} speaks TLS, and bus.security is {settings.security!r}",
            f"set bus.security to {wanted!r} (or sasl_ssl), and bus.ca_file",
        )
    if settings.security.startswith("sasl"):
        return fail(
            _CHECK,
            f"{address} refuses the log-in of {settings.username!r} with {settings.sasl_mechanism}: {error}",
            "check bus.username, bus.password and bus.sasl_mechanism"
            + ("; a listener that requires a client certificate needs bus.cert_file" if settings.security == "sasl_ssl" else ""),
        )
    return fail(
        _CHECK,
        f"{address} accepts the connection but not the request: {error}",
        "bus.security may need a sasl_* value, the listener may require a client certificate (bus.cert_file), or it may not be Kafka",
    )


async def _speaks_tls(address: str) -> bool:
    host, _, port = address.rpartition(":")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        await _connect(host, int(port), context)
    except OSError:
        return False
    return True
