"""The checks of docker-compose.yml report each kind of mistake with its service."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from deploy.check import compose, composefile, docker


def test_the_compose_file_and_the_dockerfiles_have_no_problems() -> None:
    assert [*compose.check().problems, *docker.check().problems] == []


@pytest.mark.parametrize(
    ("service", "key", "value", "named"),
    [
        ("kafka", "image", "apache/kafka:latest", "not pinned"),
        ("kafka", "read_only", False, "read_only"),
        ("market", "user", "0:0", "user"),
        ("market", "mem_limit", None, "mem_limit"),
        ("market", "healthcheck", None, "healthcheck"),
        ("redis", "cap_add", ["SYS_ADMIN"], "cap_add"),
        ("fusion", "ports", ["9400:9400"], "beyond loopback"),
        ("fusion", "environment", {"AQUILINE_FUSION__PERMITS": "many"}, "fusion.permits = 'many'"),
        ("fusion", "environment", {"AQUILINE_FUSON__PERMITS": "5"}, "did you mean AQUILINE_FUSION__PERMITS?"),
        ("fusion", "environment", {"AQUILINE_REDIS__PASSWORD": "hunter2"}, "secrets are read from files"),
        ("fusion", "environment", {"AQUILINE_FUSION__PERMITS": 5}, "in quotes"),
        ("fusion", "depends_on", {"history": {"condition": "service_started"}}, "does not say that it works"),
        ("fusion", "depends_on", {"sglang": {"condition": "service_healthy"}}, "has another profile"),
        ("topics", "depends_on", {"feed": {"condition": "service_completed_successfully"}}, "depend on each other in a cycle"),
        ("topics", "command", ["python", "-m", "services.nothing"], "services.nothing"),
        ("feed", "command", ["aquiline", "market", "samples", "--pace", "1.5"], "No such option"),
        ("feed", "command", ["aquiline", "markt", "samples"], "No such command"),
        ("market", "volumes", ["nowhere:/data"], "'nowhere' is not declared"),
        ("market", "volumes", ["./deploy:/deploy"], "mounted writable"),
        ("kafka", "tmpfs", ["/opt/kafka/config"], "'/opt/kafka/config' belongs to root"),
        ("kafka", "tmpfs", ["/opt/kafka/config:size=1m"], "write /opt/kafka/config:uid=1000,gid=1000"),
        ("kafka", "tmpfs", ["/opt/kafka/config:uid=1000"], "write /opt/kafka/config:uid=1000,gid=1000"),
        ("kafka", "tmpfs", ["/opt/kafka/logs:uid=0,gid=1000"], "belongs to root"),
        ("kafka", "tmpfs", "/opt/kafka/config", "belongs to root"),
        ("kafka", "tmpfs", ["/tmp"], "/mnt/shared/config is a volume of the image"),  # noqa: S108
        ("kafka", "volumes", [], "/var/lib/kafka/data is a volume of the image"),
        ("redis", "tmpfs", ["/tmp"], "write /data:ro,uid=10001,gid=10001"),  # noqa: S108
        ("redis", "tmpfs", "/tmp", "/data is a volume of the image"),  # noqa: S108
        ("market", "tmpfs", ["/var/cache/aquiline/"], "uid=10001,gid=10001"),
        ("market", "volumes", [{"type": "tmpfs", "target": "/var/cache"}], "under `tmpfs` instead"),
        ("market", "memory", "512m", "market"),
    ],
)
def test_each_mistake_is_reported_with_its_service(service: str, key: str, value: object, named: str) -> None:
    text: dict[str, Any] = copy.deepcopy(dict(composefile.load().text))
    text["services"][service] |= {key: value}
    if value is None:
        del text["services"][service][key]
    found = compose.findings(composefile.ComposeFile(text))
    assert [sentence for sentence in found if service in sentence and named in sentence], found


def test_an_in_memory_folder_that_names_the_services_owner_is_accepted() -> None:
    text: dict[str, Any] = copy.deepcopy(dict(composefile.load().text))
    text["services"]["market"]["tmpfs"] = ["/tmp:exec", "/var/tmp/", "/var/cache:size=1m,uid=10001,gid=10001,mode=0700"]  # noqa: S108
    assert compose.findings(composefile.ComposeFile(text)) == []


def test_profiles_start_their_own_services_and_those_of_all() -> None:
    file = composefile.load()
    default, local, gpu = (set(file.of_profiles(profile)) for profile in ("default", "local", "gpu"))
    assert default - gpu == {"simulator", "fusion", "console"}
    assert gpu - default == {"sglang", "fusion-gpu", "console-gpu"}
    assert default - local == {"simulator", "fusion", "console", "feed"}
    assert local - default == {"smollm2", "fusion-local", "console-local", "feed-local"}
