"""TLS and log-in at Kafka for the producers beside it, from the variables and secret files that Aquiline's services read.

It needs nothing of Aquiline, so that a producer and this file are all that is copied. `signal_inbox.security` is the same for consumers.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_TLS: Final = frozenset({"ssl", "sasl_ssl"})
_LOG_IN: Final = frozenset({"sasl_plaintext", "sasl_ssl"})


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
