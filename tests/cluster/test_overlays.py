"""Every overlay on a real API server: applied with strict validation, admitted by Pod Security, scheduled; and what must be refused is."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from deploy.check.k8s import OVERLAYS
from deploy.check.k8s.rendered import render
from deploy.check.result import REPOSITORY
from tests.cluster.cluster import NAMESPACE, Cluster, RefusedError

PRIVILEGED: Final = "kubectl -n aquiline run intruder --image=busybox:1.37.0 --privileged"
MISSPELT: Final = {
    "a pod's field": ("base/market.yaml", "terminationGracePeriodSeconds", "terminationGracePeriodSecond"),
    "a container's field": ("base/vision.yaml", "resources", "resource"),
    "a StatefulSet's field": ("base/fusion/fusion.yaml", "podManagementPolicy", "podManagmentPolicy"),
    "a job's field": ("base/topics.yaml", "backoffLimit", "backOffLimit"),
    "a network policy's field": ("base/network.yaml", "podSelector", "podSelecter"),
    "a custom object's field": ("overlays/scale/keda.yaml", "maxReplicaCount", "maxReplicasCount"),
}


@pytest.fixture(autouse=True)
def _empty(cluster: Cluster) -> Iterator[None]:
    yield
    cluster.clear()


def _join(cluster: Cluster, *, gpus: bool = True) -> None:
    cluster.nodes.join("cpu-a")
    cluster.nodes.join("cpu-b", zone="b")
    if gpus:
        cluster.nodes.join("gpu-a", gpus=1)
        cluster.nodes.join("gpu-b", zone="b", gpus=1)


def _secrets(cluster: Cluster) -> None:
    """Create the secrets that docs/operations.md lists, with any content: no process reads it here."""
    cluster.shell("kubectl apply -f k8s/base/namespace.yaml", folder=REPOSITORY)
    for name in ("redis", "console", "bus"):
        cluster.shell(f"kubectl -n {NAMESPACE} create secret generic {name} --from-literal=any=content")


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_is_applied_strictly_without_a_warning_and_every_pod_starts(cluster: Cluster, name: str) -> None:
    _join(cluster)
    _secrets(cluster)
    cluster.apply(f"{REPOSITORY}/k8s/overlays/{name}")
    cluster.until_running(render(f"k8s/overlays/{name}"))
    level = r"{.metadata.labels.pod-security\.kubernetes\.io/enforce}"
    assert cluster.shell(f"kubectl get namespace {NAMESPACE} -o jsonpath='{level}'") == "restricted"


def test_the_models_and_a_shadow_beside_an_overlay_are_applied_strictly_and_every_pod_starts(cluster: Cluster) -> None:
    _join(cluster)
    _secrets(cluster)
    for folder in ("overlays/scale", "models", "shadow"):
        cluster.apply(f"{REPOSITORY}/k8s/{folder}")
    for folder in ("overlays/scale", "models", "shadow"):
        cluster.until_running(render(f"k8s/{folder}"))


def test_pods_that_share_a_volume_of_one_node_are_scheduled_on_that_node(cluster: Cluster) -> None:
    _join(cluster)
    _secrets(cluster)
    cluster.apply(f"{REPOSITORY}/k8s/overlays/gpu")
    cluster.until_running(render("k8s/overlays/gpu"))
    assert cluster.get("persistentvolumeclaim", "models")["spec"]["accessModes"] == ["ReadWriteOnce"]
    mounting = {"persistentVolumeClaim": {"claimName": "models", "readOnly": True}, "name": "models"}
    pods = [pod for pod in cluster.items("pod") if mounting in pod["spec"]["volumes"]]
    assert len(pods) == 3  # engine, worker, console
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 1


def test_an_overlay_applied_again_changes_nothing(cluster: Cluster) -> None:
    _join(cluster)
    _secrets(cluster)
    overlay = f"{REPOSITORY}/k8s/overlays/local"
    cluster.apply(overlay)
    cluster.until_running(render("k8s/overlays/local"))
    before = {one["metadata"]["name"]: one["metadata"]["generation"] for one in cluster.workloads()}
    cluster.apply(overlay)
    after = {one["metadata"]["name"]: one["metadata"]["generation"] for one in cluster.workloads()}
    assert before == after


def test_a_privileged_pod_is_refused(cluster: Cluster) -> None:
    cluster.shell("kubectl apply -f k8s/base/namespace.yaml", folder=REPOSITORY)
    with pytest.raises(RefusedError, match='violates PodSecurity "restricted:latest": privileged'):
        cluster.shell(PRIVILEGED)


@pytest.mark.parametrize("case", MISSPELT)
def test_a_misspelt_field_in_an_overlay_is_refused(cluster: Cluster, tmp_path: Path, case: str) -> None:
    file, written, planted = MISSPELT[case]
    shutil.copytree(REPOSITORY / "k8s", tmp_path / "k8s")
    manifest = tmp_path / "k8s" / file
    text = manifest.read_text(encoding="utf-8")
    assert f"{written}:" in text
    manifest.write_text(text.replace(f"{written}:", f"{planted}:", 1), encoding="utf-8")
    with pytest.raises(RefusedError, match=f'field not declared in schema|unknown field .*{planted}"'):
        cluster.apply(tmp_path / "k8s/overlays/scale")


def test_an_engine_waits_for_a_gpu_and_starts_on_the_node_that_brings_one(cluster: Cluster) -> None:
    _join(cluster, gpus=False)
    _secrets(cluster)
    cluster.apply(f"{REPOSITORY}/k8s/overlays/scale")
    overlay = render("k8s/overlays/scale")

    def scheduled(name: str) -> bool:
        pods = cluster.items("pod", f"app.kubernetes.io/name={name}")
        return bool(pods) and all("nodeName" in pod["spec"] for pod in pods)

    for workload in overlay.workloads:
        if workload.name != "engine":
            cluster.until(partial(scheduled, workload.name), f"{workload.name} to be scheduled")
    engines = cluster.items("pod", "app.kubernetes.io/name=engine")
    assert [pod["metadata"]["name"] for pod in engines] == ["engine-0", "engine-1"]
    for pod in engines:
        (condition,) = [one for one in pod["status"]["conditions"] if one["type"] == "PodScheduled"]
        assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
    cluster.nodes.join("gpu-a", gpus=1)
    cluster.nodes.join("gpu-b", zone="b", gpus=1)
    cluster.until_running(overlay)
    assert {pod["spec"]["nodeName"] for pod in cluster.items("pod", "app.kubernetes.io/name=engine")} == {"gpu-a", "gpu-b"}
