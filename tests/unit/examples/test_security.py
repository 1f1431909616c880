"""The example consumer and producers connect as Aquiline's services do, from the same variables and secret files."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import kafka_security
import pytest
import signal_inbox

from deploy.local import LocalSecurity
from services.core.bus.kafka_client import Connection
from services.core.settings import load

BUS = "AQUILINE_BUS__"
Security = Callable[[Mapping[str, str]], dict[str, Any]]


@pytest.fixture(params=[signal_inbox.security, kafka_security.security], ids=["consumer", "producer"])
def security(request: pytest.FixtureRequest) -> Security:
    made: Security = request.param
    return made


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalSecurity:
    made = LocalSecurity(tmp_path_factory.mktemp("security"))
    made.create()
    return made


def variables(local: LocalSecurity, **changes: str | None) -> dict[str, str]:
    values = {
        "SECURITY": "sasl_ssl",
        "CA_FILE": str(local.ca_file),
        "CERT_FILE": str(local.cert_file),
        "KEY_FILE": str(local.key_file),
        "USERNAME": local.username,
        "PASSWORD": local.password,
    } | changes
    return {f"{BUS}{name}": value for name, value in values.items() if value is not None}


@pytest.mark.parametrize("protocol", ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"])
@pytest.mark.parametrize("mechanism", [None, "PLAIN", "SCRAM-SHA-256"])
def test_what_it_makes_of_variables_is_what_services_make_of_them(
    local: LocalSecurity, security: Security, monkeypatch: pytest.MonkeyPatch, protocol: str, mechanism: str | None
) -> None:
    given = variables(local, SECURITY=protocol, SASL_MECHANISM=mechanism)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    ours, theirs = security(given), dict(Connection.from_settings(load().bus).arguments)
    del theirs["bootstrap_servers"]
    contexts = [one.pop("ssl_context", None) for one in (ours, theirs)]
    assert ours == theirs
    assert isinstance(contexts[0], ssl.SSLContext) == isinstance(contexts[1], ssl.SSLContext) == protocol.endswith("ssl")
    if contexts[0] is not None and contexts[1] is not None:
        assert contexts[0].get_ca_certs() == contexts[1].get_ca_certs()
        assert contexts[0].verify_mode is ssl.CERT_REQUIRED
        assert contexts[0].check_hostname


def test_a_secret_may_be_a_file(local: LocalSecurity, security: Security, tmp_path: Path) -> None:
    (tmp_path / "aquiline_bus__password").write_text("from a file\n")
    made = security(variables(local, PASSWORD=None) | {"AQUILINE_SECRETS_DIR": str(tmp_path)})
    assert made["sasl_plain_password"] == "from a file"


def test_without_variables_it_connects_in_plain_text(security: Security) -> None:
    assert security({}) == {"security_protocol": "PLAINTEXT"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SECURITY": "tls"}, "AQUILINE_BUS__SECURITY is 'tls'; expected plaintext, ssl"),
        ({"PASSWORD": None}, "sasl_ssl needs AQUILINE_BUS__USERNAME and AQUILINE_BUS__PASSWORD"),
        ({"KEY_FILE": None}, "AQUILINE_BUS__KEY_FILE go together"),
        ({"CA_FILE": "/absent.pem"}, r"look at /absent\.pem"),
    ],
)
def test_what_cannot_be_used_is_refused_before_anything_connects(
    local: LocalSecurity, security: Security, changes: dict[str, str | None], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        security(variables(local, **changes))
