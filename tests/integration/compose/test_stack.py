"""The stack of `docker-compose.yml`, every part of it that is ours, with log-ins and without."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from deploy.local import LocalKafka, LocalSecurity
from tests.conftest import start_or_skip
from tests.integration.compose.scenario import start_decide_drain
from tests.integration.compose.stack import Stack

# Some forty seconds each on two quiet cores, and far more on busy ones: every process imports half of everything.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

_PASSWORD = "aquiline_bus__password"


async def test_the_stack_starts_in_its_declared_order_decides_and_drains(stack: Stack) -> None:
    await start_decide_drain(stack)


async def test_behind_tls_and_log_ins_the_same_stack_works_with_credentials_from_files_and_is_refused_without(tmp_path: Path) -> None:
    security = LocalSecurity(tmp_path / "security")
    with start_or_skip(LocalKafka(tmp_path / "kafka", security=security)) as kafka:
        stack = Stack(
            tmp_path / "stack",
            kafka,
            security=security,
            variables={
                "AQUILINE_BUS__SECURITY": "sasl_ssl",
                "AQUILINE_BUS__CA_FILE": str(security.ca_file),
                "AQUILINE_BUS__CERT_FILE": str(security.cert_file),
                "AQUILINE_BUS__KEY_FILE": str(security.key_file),
                "AQUILINE_BUS__USERNAME": security.username,
                "AQUILINE_BUS__REQUEST_TIMEOUT_MS": "5000",
                "AQUILINE_REDIS__CA_FILE": str(security.ca_file),
                "AQUILINE_SECRETS_DIR": str(tmp_path / "stack" / "volumes" / "secrets"),
            },
        )
        try:
            file = stack.secrets / _PASSWORD
            file.touch(mode=0o600)
            file.write_text(security.password)
            await start_decide_drain(stack, lambda: _is_refused(stack, tmp_path))
        finally:
            stack.close()


def _is_refused(stack: Stack, folder: Path) -> None:
    """No service and no job gets in without what it needs, and each says in a sentence what that is."""
    wrong = folder / "wrong"
    wrong.mkdir()
    for name in (_PASSWORD, "aquiline_redis__password", "aquiline_engine__api_key"):
        (wrong / name).write_text("hunter2")
    for name in ("topics", "fusion"):
        ended = stack.once(name, AQUILINE_SECRETS_DIR=None, AQUILINE_HTTP__PORT="0")
        assert (ended.returncode, "needs bus.username and bus.password" in ended.stderr) == (1, True), ended.stderr
    for change, sentence in (
        ({"AQUILINE_SECRETS_DIR": str(wrong)}, "refuses the log-in"),
        ({"AQUILINE_BUS__SECURITY": "plaintext"}, "check `bus.url`, `bus.security`"),
    ):
        ended = stack.once("topics", **change)
        assert (ended.returncode, sentence in ended.stderr) == (1, True), ended.stderr
        assert "hunter2" not in ended.stderr + ended.stdout
    # Redis and the engine are not refused at the start: a worker goes on without the one and waits for the other.
    looked = stack.once("fusion", "aquiline", "doctor", "--json", AQUILINE_SECRETS_DIR=str(wrong))
    found = {one["check"].split()[0]: one["sentence"] for one in json.loads(looked.stdout)["findings"] if one["level"] == "fail"}
    assert (looked.returncode, set(found)) == (1, {"kafka", "redis", "engine"}), found
    looked = stack.once("fusion", "aquiline", "doctor")
    assert looked.returncode == 0, looked.stdout
