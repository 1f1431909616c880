"""The example consumer and a producer on a real Kafka with TLS, a client certificate and log-in."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import aclosing
from pathlib import Path

import pytest
from aiokafka.errors import KafkaError
from pydantic import SecretStr
from signal_inbox import Act, SignalInbox, follow

from deploy.local import LocalKafka, LocalSecurity
from services.core.bus import NewTopic
from services.core.bus.connect import connect
from services.core.clock import SystemClock
from services.core.settings import BusSettings
from tests.conftest import start_or_skip
from tests.unit.examples.test_security import variables
from tests.unit.examples.test_signal_inbox import signal

NOTES_PRODUCER = Path(__file__).parents[3] / "examples" / "producer" / "notes_producer.py"
pytestmark = pytest.mark.integration


def publish_note(bootstrap: str) -> int:
    """Publish a note as a user does, and return the exit status."""
    line = '{"symbol": "*", "text": "to all"}\n'
    return subprocess.run([sys.executable, str(NOTES_PRODUCER), bootstrap, "notes"], input=line, text=True, check=False).returncode


async def test_signals_are_followed_and_notes_published_with_tls_and_log_in_and_not_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = LocalSecurity(tmp_path / "security")
    with start_or_skip(LocalKafka(tmp_path / "kafka", security=local)) as server:
        bus = connect(
            BusSettings(
                url=server.url,
                security="sasl_ssl",
                ca_file=local.ca_file,
                cert_file=local.cert_file,
                key_file=local.key_file,
                username=local.username,
                password=SecretStr(local.password),
            ),
            SystemClock(),
        )
        sent = signal(1, valid_until_ms=time.time_ns() // 1_000_000 + 60_000)
        admin, producer = await bus.admin(), await bus.producer(client_id="test")
        await admin.create([NewTopic("strategy-signals", 1, {}), NewTopic("notes", 1, {})])
        await (await producer.send("strategy-signals", key=b"k", value=sent.encode()))
        await producer.close()
        await admin.close()
        await bus.close()

        secrets = tmp_path / "secrets"
        secrets.mkdir()
        (secrets / "aquiline_bus__password").write_text(local.password)
        for name, value in (variables(local, PASSWORD=None) | {"AQUILINE_SECRETS_DIR": str(secrets)}).items():
            monkeypatch.setenv(name, value)
        bootstrap = server.url.removeprefix("kafka://")
        async with aclosing(follow(bootstrap, "strategy-signals", "desk", SignalInbox())) as steps:
            assert await anext(steps) == Act(sent)
        assert publish_note(bootstrap) == 0
        monkeypatch.setenv("AQUILINE_BUS__PASSWORD", "wrong")
        with pytest.raises(KafkaError):
            await anext(follow(bootstrap, "strategy-signals", "desk", SignalInbox()))
        assert publish_note(bootstrap) != 0
