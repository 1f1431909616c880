"""docs/operations.md holds on a real API server: its commands are taken out of the page and run, in its order."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from deploy.check.k8s.rendered import render
from tests.cluster import page
from tests.cluster.cluster import NAMESPACE, Cluster, RefusedError

WALK: Final = "Try it on kind or minikube"
FOLLOWED: Final = {WALK, "Install", "Upgrade", "Roll back", "Halt and first resume", "Drain", "Shadow, promotion, roll back"}
SYSTEM_CORES: Final = 1
SYSTEM_GIB: Final = 1
"""Kept for the pods of kube-system: on a node of kind they request 0.95 cores and 290 MiB (CoreDNS, etcd, kindnet, the control plane)."""


def test_every_section_with_commands_for_a_cluster_is_followed() -> None:
    assert page.sections_with_kubectl() == FOLLOWED


@pytest.fixture(scope="module")
def site(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install an overlay of one's own as the page does, and return the checkout that holds it."""
    folder = page.checkout(tmp_path_factory.mktemp("checkout"))
    page.own_overlay(folder)
    for name, zone, gpus in (("cpu-a", "a", 0), ("cpu-b", "b", 0), ("gpu-a", "a", 1), ("gpu-b", "b", 1)):
        cluster.nodes.join(name, zone=zone, gpus=gpus)
    images, secrets, models, start = page.steps("Install")
    page.follow(cluster, folder, images)
    assert "secrets create" in "".join(secrets)
    given = {"aquiline_bus__username": "aquiline", "aquiline_bus__password": "secret", "ca.pem": "a certificate"}
    made = [command for command in secrets if command.startswith("mkdir")]
    before = secrets[: secrets.index(made[0]) + 1]
    page.follow(cluster, folder, before)
    for name, text in given.items():
        (folder / "secrets" / name).write_text(text)
    page.follow(cluster, folder, secrets[len(before) :])
    page.follow(cluster, folder, models)
    page.follow(cluster, folder, start)
    yield folder
    cluster.clear()


def test_an_overlay_of_ones_own_runs_as_the_page_installs_it(cluster: Cluster, site: Path) -> None:
    cluster.until_running(render(str(site / "site")))
    images = {one["spec"]["template"]["spec"]["containers"][0]["image"].split("/")[0] for one in cluster.workloads()}
    assert images == {"registry.example", "redis:8.2.9-alpine"}
    token = cluster.get("secret", "console")["data"]["aquiline_console__token"]
    assert len(base64.b64decode(token)) >= 32
    assert not (site / "secrets").exists()


def test_a_halt_is_typed_in_a_pod_that_runs(cluster: Cluster, site: Path) -> None:
    for block in page.steps("Halt and first resume"):
        page.follow(cluster, site, block)


def test_a_changed_setting_is_refused_while_its_job_is_there_and_rolls_out_as_the_page_upgrades(cluster: Cluster, site: Path) -> None:
    before = _templates(cluster)
    settings = site / "site" / "aquiline.toml"
    settings.write_text(settings.read_text().replace("permits = 2", "permits = 3"))
    with pytest.raises(RefusedError, match=r'"topics" is invalid(?s:.*)field is immutable'):
        cluster.shell("kubectl apply -k site", folder=site)
    (upgrade,) = page.steps("Upgrade")
    page.follow(cluster, site, upgrade)
    cluster.until_running(render(str(site / "site")))
    after = _templates(cluster)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"fusion", "market", "vision", "scoring", "console"}  # not the engines, whose caches would be empty
    assert "permits = 3" in _settings_of_fusion(cluster)


def test_a_rollback_restores_the_settings_before(cluster: Cluster, site: Path) -> None:
    assert "permits = 3" in _settings_of_fusion(cluster)
    (back,) = page.steps("Roll back")
    page.follow(cluster, site, back)
    assert "permits = 2" in _settings_of_fusion(cluster)


@pytest.mark.usefixtures("site")
def test_a_second_worker_is_not_evicted_while_the_first_is_gone(cluster: Cluster) -> None:
    workers = [f"fusion-{number}" for number in range(3)]

    def one_may_go() -> bool:
        status = cluster.get("poddisruptionbudget", "fusion")["status"]
        return all(_ready(cluster, name) for name in workers) and bool(status["disruptionsAllowed"] == 1)

    cluster.until(one_may_go, "three workers")
    with cluster.nodes.silent():
        _evict(cluster, workers[0])
        with pytest.raises(RefusedError, match="Cannot evict pod as it would violate the pod's disruption budget"):
            _evict(cluster, workers[1])
    cluster.until(one_may_go, "the first worker's replacement")
    _evict(cluster, workers[1])
    cluster.until(one_may_go, "the second worker's replacement")


def test_a_node_is_drained_as_the_page_says(cluster: Cluster, site: Path) -> None:
    (drain,) = [typed for typed in page.commands_in_text("Drain") if typed.startswith("kubectl drain NODE")]
    node = cluster.get("pod", "fusion-0")["spec"]["nodeName"]
    cluster.shell(drain.replace("NODE", f"{node} --timeout=120s"), folder=site)
    cluster.until_running(render(str(site / "site")), jobs=False)
    assert [pod["metadata"]["name"] for pod in cluster.items("pod") if pod["spec"]["nodeName"] == node] == []
    cluster.shell(f"kubectl uncordon {node}")


def test_a_candidate_runs_in_shadow_as_the_page_says(cluster: Cluster, site: Path) -> None:
    for block in page.steps("Shadow, promotion, roll back"):
        if any("kubectl" in command for command in block):  # the others need topics with records
            page.follow(cluster, site, block)
    cluster.until_running(render("k8s/shadow"))


def test_everything_is_scaled_to_nothing_as_the_page_says(cluster: Cluster, site: Path) -> None:
    (stop,) = page.steps("Drain")
    page.follow(cluster, site, stop)
    cluster.until(lambda: not cluster.items("pod", "app.kubernetes.io/name in (fusion,scoring)"), "the workers to be gone")
    paused = {
        one["metadata"]["name"]: one["metadata"]["annotations"]["autoscaling.keda.sh/paused-replicas"]
        for one in cluster.items("scaledobject")
    }
    assert paused == {"market": "0", "vision": "0"}


def test_the_walk_through_kind_runs_on_one_node_of_the_size_that_the_page_names(shared: Cluster, tmp_path: Path) -> None:
    shared.clear()
    cores, memory_gib = page.machine_size(WALK)
    shared.nodes.join("kind", cpu=str(cores - SYSTEM_CORES), memory=f"{memory_gib - SYSTEM_GIB}Gi")
    folder = page.checkout(tmp_path)
    before: dict[str, str] = {}
    for block in page.steps(WALK):
        if any("delete job" in command for command in block):
            before = _templates(shared)
            settings = folder / "k8s/overlays/local/aquiline.toml"
            settings.write_text(settings.read_text().replace("max_staleness_ms = 2000", "max_staleness_ms = 2500"))
        page.follow(shared, folder, block)
        if before and shared.find("statefulset", "fusion"):
            assert "max_staleness_ms = 2500" in _settings_of_fusion(shared)
            assert {name for name, template in _templates(shared).items() if before[name] != template} == {
                "fusion",
                "market",
                "vision",
                "scoring",
                "console",
            }
    assert before
    assert shared.shell(f"kubectl get namespace {NAMESPACE} --ignore-not-found") == ""
    shared.clear()


def _templates(cluster: Cluster) -> dict[str, str]:
    return {one["metadata"]["name"]: json.dumps(one["spec"]["template"]) for one in cluster.workloads()}


def _settings_of_fusion(cluster: Cluster) -> str:
    """Return the settings that the pod fusion-0 reads."""
    volumes = cluster.get("pod", "fusion-0")["spec"]["volumes"]
    (name,) = [one["configMap"]["name"] for one in volumes if "configMap" in one]
    text: str = cluster.get("configmap", name)["data"]["aquiline.toml"]
    return text


def _ready(cluster: Cluster, pod: str) -> bool:
    held = cluster.find("pod", pod)
    if held is None or "deletionTimestamp" in held["metadata"]:
        return False
    return ("Ready", "True") in {(one["type"], one["status"]) for one in held["status"].get("conditions", [])}


def _evict(cluster: Cluster, pod: str) -> None:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"
    cluster.shell(f"kubectl create --raw {path} -f -", given=json.dumps(eviction))
