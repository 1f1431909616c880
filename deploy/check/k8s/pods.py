"""Checks every pod: restricted Pod Security Standard, probes, limits, pinned images, grace periods, disruption budgets."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from deploy.check.commands import refusal
from deploy.check.k8s.rendered import Rendered, Workload, selects

_PINNED: Final = re.compile(r"^[a-z0-9./-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*(@sha256:[0-9a-f]{64})?$")
_VOLUMES: Final = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
_HOST: Final = ("hostNetwork", "hostPID", "hostIPC")
_PROBES: Final = ("startupProbe", "readinessProbe", "livenessProbe")


def problems(overlay: Rendered) -> Iterator[str]:
    """Yield each problem of a pod of the overlay."""
    for workload in overlay.workloads:
        for sentence in (*_pod(workload), *_long_lived(workload, overlay), *_command(workload)):
            yield f"{workload.kind} {workload.name}: {sentence}"
        for container in workload.containers:
            for sentence in (*_restricted(container, workload.pod), *_hardening(container), *_probes(container, workload)):
                yield f"{workload.kind} {workload.name}: container {container['name']}: {sentence}"


def _pod(workload: Workload) -> Iterator[str]:
    pod = workload.pod
    for key in _HOST:
        if pod.get(key):
            yield f"{key} is set; the restricted Pod Security Standard forbids it"
    for volume in pod.get("volumes", []):
        if not (kinds := volume.keys() - {"name"}) <= _VOLUMES:
            yield f"volume {volume['name']} is a {'/'.join(sorted(kinds - _VOLUMES))}; the restricted Pod Security Standard forbids it"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"volume {volume['name']} has no sizeLimit: it can exhaust the node's disk or memory"
    for key in ("automountServiceAccountToken", "enableServiceLinks"):
        if pod.get(key) is not False:
            yield f"{key} is {pod.get(key)!r} and must be false"


def _restricted(container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    own, shared = container.get("securityContext", {}), pod.get("securityContext", {})
    merged = shared | own
    if merged.get("runAsNonRoot") is not True:
        yield "runAsNonRoot is not true"
    if merged.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield f"seccompProfile is {merged.get('seccompProfile')!r} and must be RuntimeDefault"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = own.get("capabilities", {})
    if capabilities.get("drop") != ["ALL"] or capabilities.get("add"):
        yield f"capabilities are {capabilities!r}; drop ALL and add none"
    if own.get("privileged") or own.get("procMount"):
        yield "privileged and procMount are not allowed"
    if not merged.get("runAsUser"):
        yield f"runAsUser is {merged.get('runAsUser')!r} and must be a number above 0: Kubernetes cannot verify a user name"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "hostPort is not allowed: it opens a port of the node"


def _hardening(container: Mapping[str, Any]) -> Iterator[str]:
    if not _PINNED.match(container["image"]):
        yield f"image {container['image']!r} is not pinned by a whole version, such as name:1.2.3"
    if container.get("securityContext", {}).get("readOnlyRootFilesystem") is not True:
        yield "readOnlyRootFilesystem is not true"
    resources = container.get("resources", {})
    for kind, key in (("requests", "cpu"), ("requests", "memory"), ("limits", "memory")):
        if key not in resources.get(kind, {}):
            yield f"resources.{kind}.{key} is missing"
    for variable in container.get("env", []):
        if re.search(r"PASSWORD|API_KEY|TOKEN$|SECRET$", variable["name"]):
            yield f"variable {variable['name']} holds a secret; secrets are read from files"


def _probes(container: Mapping[str, Any], workload: Workload) -> Iterator[str]:
    if workload.kind == "Job":
        return
    ports = {port["name"] for port in container.get("ports", [])}
    for probe in _PROBES:
        if probe not in container:
            yield f"{probe} is missing"
            continue
        for how in ("httpGet", "tcpSocket"):
            port = container[probe].get(how, {}).get("port", next(iter(ports), None))
            if port not in ports:
                yield f"{probe} uses port {port!r}; the container has {sorted(ports)}"


def _long_lived(workload: Workload, overlay: Rendered) -> Iterator[str]:
    if workload.kind == "Job":
        if "ttlSecondsAfterFinished" not in workload.manifest["spec"]:
            yield "ttlSecondsAfterFinished is missing: a finished job that stays cannot be changed"
        return
    if "terminationGracePeriodSeconds" not in workload.pod:
        yield "terminationGracePeriodSeconds is missing"
    budgets = [one for one in overlay.of_kind("PodDisruptionBudget") if selects(one["spec"]["selector"], workload.labels)]
    if len(budgets) != 1:
        yield f"{len(budgets)} disruption budgets select it; expected one"
    if workload.replicas != 1 and not workload.pod.get("topologySpreadConstraints"):
        yield "topologySpreadConstraints are missing: all its pods may run on one node"


def _command(workload: Workload) -> Iterator[str]:
    match workload.command:
        case ["python", "-m", module, *_]:
            if importlib.util.find_spec(module) is None:
                yield f"command {workload.command}: module {module} does not exist"
        case ["aquiline", name, *rest]:
            if refused := refusal(name, rest):
                yield f"command {workload.command}: {refused}"
        case _:
            pass
