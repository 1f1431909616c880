"""Checks that every reference in a manifest resolves: ConfigMaps, secrets, claims, accounts, ports and selectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from deploy.check.k8s.rendered import Rendered, Workload, selects, title_of
from deploy.check.result import REPOSITORY

DOCUMENT: Final = REPOSITORY / "docs" / "operations.md"
"""The page that lists every key of every secret that an operator creates."""
_SELECTING: Final = ("PodDisruptionBudget", "NetworkPolicy", "PodMonitor", "Service")


def problems(overlay: Rendered) -> Iterator[str]:
    """Yield each reference that does not resolve."""
    for workload in overlay.workloads:
        for sentence in (*_volumes(workload, overlay), *_account(workload, overlay), *_service_name(workload, overlay)):
            yield f"{workload.kind} {workload.name}: {sentence}"
    for manifest in overlay.of_kind(*_SELECTING):
        for sentence in _selected(manifest, overlay):
            yield f"{title_of(manifest)}: {sentence}"
    for manifest in overlay.of_kind("TriggerAuthentication"):
        for target in manifest["spec"].get("secretTargetRef", []):
            if not _documented(target["name"], target["key"]):
                yield f"{title_of(manifest)}: {_undocumented(target['name'], target['key'])}"


def _volumes(workload: Workload, overlay: Rendered) -> Iterator[str]:
    claimed = {one["metadata"]["name"] for one in workload.manifest["spec"].get("volumeClaimTemplates", [])}
    volumes = {one["name"]: one for one in workload.pod.get("volumes", [])}
    mounted = {mount["name"] for container in workload.containers for mount in container.get("volumeMounts", [])}
    for name in sorted(mounted - claimed - volumes.keys()):
        yield f"mounts a volume {name!r} that it does not declare"
    for name in sorted((claimed | volumes.keys()) - mounted):
        yield f"has a volume {name!r} that nothing mounts"
    for volume in volumes.values():
        yield from _source(volume, overlay)
    for variable in (one for container in workload.containers for one in container.get("env", [])):
        if variable.get("valueFrom", {}).keys() - {"fieldRef"}:
            yield f"variable {variable['name']} comes from {'/'.join(variable['valueFrom'])}; settings come from files"


def _source(volume: Mapping[str, Any], overlay: Rendered) -> Iterator[str]:
    if "configMap" in volume:
        yield from _config_map(volume["configMap"]["name"], overlay)
    if "persistentVolumeClaim" in volume:
        claims = {one["metadata"]["name"] for one in overlay.of_kind("PersistentVolumeClaim")}
        if (name := volume["persistentVolumeClaim"]["claimName"]) not in claims:
            yield f"volume {volume['name']} is the claim {name!r}, which does not exist"
    if "secret" in volume:
        yield from _secret(volume["secret"]["secretName"], volume["secret"], volume["name"])
    for source in volume.get("projected", {}).get("sources", []):
        if "secret" in source:
            yield from _secret(source["secret"]["name"], source["secret"], volume["name"])


def _config_map(name: str, overlay: Rendered) -> Iterator[str]:
    if name not in {one["metadata"]["name"] for one in overlay.of_kind("ConfigMap")}:
        yield f"names the ConfigMap {name!r}, which does not exist"


def _secret(name: str, how: Mapping[str, Any], volume: str) -> Iterator[str]:
    if how.get("optional"):
        yield f"volume {volume}: secret {name!r} is optional: a service could start without it"
    keys = [item["key"] for item in how.get("items", [])] or [None]
    yield from (f"volume {volume}: {_undocumented(name, key)}" for key in keys if not _documented(name, key))


def _documented(secret: str, key: str | None) -> bool:
    rows = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{secret}` |")]
    return any(key is None or f"`{key}`" in row for row in rows)


def _undocumented(secret: str, key: str | None) -> str:
    return f"secret {secret!r}{f' with key {key!r}' if key else ''} is not in the table of secrets of docs/operations.md"


def _account(workload: Workload, overlay: Rendered) -> Iterator[str]:
    accounts = {one["metadata"]["name"] for one in overlay.of_kind("ServiceAccount")}
    # What is deployed beside an overlay uses the overlay's account.
    if accounts and (name := workload.pod.get("serviceAccountName")) not in accounts:
        yield f"serviceAccountName {name!r} is not one of {sorted(accounts)}"


def _service_name(workload: Workload, overlay: Rendered) -> Iterator[str]:
    if workload.kind != "StatefulSet":
        return
    services = {one["metadata"]["name"]: one for one in overlay.of_kind("Service")}
    service = services.get(workload.manifest["spec"]["serviceName"])
    if service is None or service["spec"].get("clusterIP") != "None" or not selects(_selector(service), workload.labels):
        yield f"serviceName {workload.manifest['spec']['serviceName']!r} is not a headless service for its pods, so they have no DNS names"


def _selected(manifest: Mapping[str, Any], overlay: Rendered) -> Iterator[str]:
    selector = _selector(manifest)
    workloads = [one for one in overlay.workloads if selects(selector, one.labels)]
    if not workloads:
        yield f"its selector {selector} selects nothing"
    ports = [port["targetPort"] for port in manifest["spec"].get("ports", [])] if manifest["kind"] == "Service" else []
    ports += [endpoint["port"] for endpoint in manifest["spec"].get("podMetricsEndpoints", [])]
    for workload in workloads:
        for port in ports:
            if port not in {one["name"] for container in workload.containers for one in container.get("ports", [])}:
                yield f"port {port!r} is not a port of {workload.kind} {workload.name}"


def _selector(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = manifest["spec"]
    if manifest["kind"] == "Service":
        return {"matchLabels": spec["selector"]}
    selector: Mapping[str, Any] = spec["podSelector" if manifest["kind"] == "NetworkPolicy" else "selector"]
    return selector
