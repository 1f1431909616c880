"""Nodes without a machine: Node objects that the scheduler binds pods to, and a loop that reports what kubelets would report.

A bound pod becomes ready once its secrets and ConfigMaps exist, a job's pod succeeds, a deleted one goes, and every claim gets a volume.
No container runs, so no image, mount, probe or network policy is exercised.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
import urllib.error
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self

from tests.cluster.servers import ApiServer

_PERIOD_S: Final = 0.2
_STRATEGIC: Final = "application/strategic-merge-patch+json"
_CONFLICTS: Final = frozenset({404, 409})
"""Answers to a report about an object that has changed or gone since it was read: the next round reports again."""
_READY_SINCE: Final = dt.timedelta(minutes=1)
"""Pods report that they became ready a minute ago, so that a roll-out does not wait for `minReadySeconds` of each."""


class Nodes:
    """The nodes of one API server, and the thread that reports for their pods."""

    def __init__(self, api: ApiServer) -> None:
        """Report to `api` between `__enter__` and `__exit__`."""
        self._api = api
        self._stopped = threading.Event()
        self._reporting = threading.Lock()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="kubelets")
        self._addresses = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Report nothing meanwhile: pods that are deleted stay, and new ones do not start."""
        with self._reporting:
            yield

    def join(self, name: str, *, zone: str = "a", cpu: str = "16", memory: str = "256Gi", gpus: int = 0) -> None:
        """Add a node with so much to give; a GPU's node has the label of feature discovery and the usual taint."""
        labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}
        gpu = {"nvidia.com/gpu": str(gpus)} if gpus else {}
        taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}] if gpus else []
        metadata = {"name": name, "labels": labels | ({"nvidia.com/gpu.present": "true"} if gpus else {})}
        self._send("POST", "/api/v1/nodes", {"metadata": metadata})
        resources = {"cpu": cpu, "memory": memory, "ephemeral-storage": "200Gi", "pods": "110", **gpu}
        conditions = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "stand-in"}]
        status = {"capacity": resources, "allocatable": resources, "conditions": conditions}
        self._send("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, kind=_STRATEGIC)
        # The taint `not-ready`, which admission adds, goes with the others that were not asked for.
        self._send("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": taints}}, kind="application/merge-patch+json")

    def clear(self) -> None:
        """Remove every node."""
        self._send("DELETE", "/api/v1/nodes", {})

    def _run(self) -> None:
        try:
            while not self._stopped.wait(_PERIOD_S):
                with self._reporting:
                    self._round()
        except BaseException as error:  # noqa: BLE001 - raised where the nodes are left
            self._failure = error

    def _round(self) -> None:
        """Report once for every pod and claim."""
        for claim in self._list("/api/v1/persistentvolumeclaims"):
            if not claim["spec"].get("volumeName"):
                self._provision(claim)
        waiting = []
        for pod in self._list("/api/v1/pods"):
            if "nodeName" not in pod["spec"]:
                continue
            if "deletionTimestamp" in pod["metadata"]:
                self._try("DELETE", _path(pod), {"gracePeriodSeconds": 0})
            elif pod["status"]["phase"] == "Pending":
                waiting.append(pod)
        if waiting:
            held = {(kind, *_name(one)) for kind in ("configmaps", "secrets") for one in self._list(f"/api/v1/{kind}")}
            for pod in waiting:
                if held.issuperset(_needs(pod)):
                    self._try("PATCH", f"{_path(pod)}/status", {"status": self._status(pod)}, kind=_STRATEGIC)

    def _status(self, pod: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a kubelet reports of a pod whose containers have started, or have ended when a job owns it."""
        now = dt.datetime.now(tz=dt.UTC)
        since = (now - _READY_SINCE).isoformat(timespec="seconds").replace("+00:00", "Z")
        ended = any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", []))
        self._addresses += 1
        state = {"terminated": {"exitCode": 0, "startedAt": since, "finishedAt": since}} if ended else {"running": {"startedAt": since}}
        containers = [
            {"name": one["name"], "image": one["image"], "imageID": "", "ready": not ended, "restartCount": 0, "state": state}
            for one in pod["spec"]["containers"]
        ]
        reached = {"Initialized": True, "PodScheduled": True, "ContainersReady": not ended, "Ready": not ended}
        address = f"10.244.{self._addresses // 250}.{self._addresses % 250 + 1}"
        return {
            "phase": "Succeeded" if ended else "Running",
            "startTime": since,
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": name, "status": str(met), "lastTransitionTime": since} for name, met in reached.items()],
            "containerStatuses": containers,
        }

    def _provision(self, claim: Mapping[str, Any]) -> None:
        """Give a claim the volume that it asks for."""
        namespace, name = _name(claim)
        volume = {
            "metadata": {"name": f"volume-{claim['metadata']['uid']}"},
            "spec": {
                "capacity": claim["spec"]["resources"]["requests"],
                "accessModes": claim["spec"]["accessModes"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": f"/volumes/{namespace}-{name}"},
                "claimRef": {"kind": "PersistentVolumeClaim", "namespace": namespace, "name": name, "uid": claim["metadata"]["uid"]},
            },
        }
        self._try("POST", "/api/v1/persistentvolumes", volume)

    def _list(self, path: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = json.loads(self._api.ask("GET", path))["items"]
        return items

    def _send(self, method: str, path: str, body: Mapping[str, Any], *, kind: str = "application/json") -> None:
        self._api.ask(method, path, body, kind=kind)

    def _try(self, method: str, path: str, body: Mapping[str, Any], *, kind: str = "application/json") -> None:
        """Send a report; leave out one that came too late."""
        try:
            self._send(method, path, body, kind=kind)
        except urllib.error.HTTPError as error:
            if error.code not in _CONFLICTS:
                raise


def _name(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _path(pod: Mapping[str, Any]) -> str:
    namespace, name = _name(pod)
    return f"/api/v1/namespaces/{namespace}/pods/{name}"


def _needs(pod: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield the ConfigMaps and secrets without which a kubelet does not start a pod."""
    namespace = pod["metadata"]["namespace"]
    for volume in pod["spec"].get("volumes", []):
        if "configMap" in volume:
            yield "configmaps", namespace, volume["configMap"]["name"]
        if "secret" in volume:
            yield "secrets", namespace, volume["secret"]["secretName"]
        for source in volume.get("projected", {}).get("sources", []):
            if "secret" in source:
                yield "secrets", namespace, source["secret"]["name"]
