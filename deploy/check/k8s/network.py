"""Evaluates network policies: every needed connection is open, and no other.

A connection passes when the policies at both ends allow it; an end that no policy selects allows everything.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final
from urllib.parse import urlsplit

from deploy.check.k8s.configuration import settings_of
from deploy.check.k8s.rendered import Manifest, Rendered, Workload, selects
from services.core.settings import Settings

_NAMESPACE: Final = "kubernetes.io/metadata.name"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a connection: a pod by labels and namespace, or an address outside the cluster."""

    name: str
    labels: Mapping[str, str] | None = None
    namespace: str = ""
    address: str | None = None
    """None together with `labels` None: outside the cluster, at an unknown address."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A possible connection."""

    source: End
    target: End
    port: int
    protocol: str = "TCP"

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.source.name} to {self.target.name}:{self.port}/{self.protocol}"


DNS: Final = End("DNS", {"k8s-app": "kube-dns"}, "kube-system")
PROMETHEUS: Final = End("Prometheus", {"app.kubernetes.io/name": "prometheus"}, "monitoring")
FOREIGN_POD: Final = End(
    "a pod of another namespace", {"app.kubernetes.io/name": "fusion", "app.kubernetes.io/component": "worker"}, "elsewhere"
)
INTERNET: Final = End("the internet", address="1.1.1.1")


def problems(overlay: Rendered) -> Iterator[str]:
    """Yield each needed connection that is closed, and each open one that is not needed."""
    settings = settings_of(overlay)
    if isinstance(settings, str):
        return  # `configuration` reports it
    policies = list(overlay.of_kind("NetworkPolicy"))
    if {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} not in [one["spec"] for one in policies]:
        yield "no network policy denies everything by default, so a pod that none selects is open"
    wanted = set(map(str, flows := list(needed(overlay, settings))))
    yield from (f"network policies block {flow}, which is needed" for flow in flows if not passes(policies, flow))
    yield from (
        f"network policies allow {flow}, which nothing needs"
        for flow in _others(overlay)
        if str(flow) not in wanted and passes(policies, flow)
    )


def needed(overlay: Rendered, settings: Settings) -> Iterator[Flow]:
    """Yield the needed connections: DNS, broker, Redis, engines, scraping, traces."""
    pods = {one.name: _end(one) for one in overlay.workloads}
    yield from (Flow(end, DNS, 53, protocol) for end in pods.values() for protocol in ("UDP", "TCP"))
    brokers = [_split(address) for address in settings.bus.url.removeprefix("kafka://").split(",")]
    clients = [one.name for one in overlay.workloads if "AQUILINE_CONFIG" in one.variables or one.name in dict(brokers)]
    yield from (Flow(pods[client], _target(host, pods), port) for client in clients for host, port in brokers)
    host, port = _split(urlsplit(settings.redis.url).netloc)
    rewarmed = [one.name for one in overlay.workloads if "--rewarm-url" in one.command]
    workers = [one.name for one in overlay.workloads if "services.fusion" in one.command]
    yield from (Flow(pods[client], _target(host, pods), port) for client in (*workers, *rewarmed))
    for url in settings.engine.urls:
        host, port = _split(urlsplit(url).netloc)
        yield from (Flow(pods[worker], _target(host, pods), port) for worker in workers)
    if settings.traces.enabled:
        host, port = _split(urlsplit(settings.traces.endpoint).netloc)
        yield from (Flow(pods[client], _target(host, pods), port) for client in ("market", "vision", "fusion") if client in pods)
    for monitor in overlay.of_kind("PodMonitor"):
        for workload in overlay.workloads:
            if selects(monitor["spec"]["selector"], workload.labels):
                yield from (Flow(PROMETHEUS, _end(workload), port) for port in _ports(workload))


def _others(overlay: Rendered) -> Iterator[Flow]:
    ends = [(_end(one), _ports(one)) for one in overlay.workloads]
    for (source, _), (target, ports) in product(ends, ends):
        yield from (Flow(source, target, port) for port in ports)
    for end, ports in ends:
        yield from (Flow(outsider, end, port) for outsider in (FOREIGN_POD, PROMETHEUS, INTERNET) for port in ports)
        yield from (Flow(end, outsider, 443) for outsider in (FOREIGN_POD, INTERNET))


def passes(policies: Sequence[Manifest], flow: Flow) -> bool:
    """Return whether the policies at both ends allow `flow`."""
    out = _allows(policies, flow.source, "Egress", flow.target, flow)
    return out and _allows(policies, flow.target, "Ingress", flow.source, flow)


def _allows(policies: Sequence[Manifest], end: End, direction: str, peer: End, flow: Flow) -> bool:
    if end.labels is None:
        return True
    selecting = [
        one["spec"]
        for one in policies
        if one["metadata"]["namespace"] == end.namespace
        and direction in one["spec"]["policyTypes"]
        and selects(one["spec"]["podSelector"], end.labels)
    ]
    key = "to" if direction == "Egress" else "from"
    rules = [rule for spec in selecting for rule in spec.get(direction.lower(), [])]
    return not selecting or any(
        _port(rule, flow) and (not rule.get(key) or any(_peer(one, peer, end.namespace) for one in rule[key])) for rule in rules
    )


def _port(rule: Mapping[str, Any], flow: Flow) -> bool:
    ports = rule.get("ports", [])
    return not ports or any(one["port"] == flow.port and one.get("protocol", "TCP") == flow.protocol for one in ports)


def _peer(peer: Mapping[str, Any], end: End, namespace: str) -> bool:
    if "ipBlock" in peer:
        return end.labels is None and (end.address is None or _in_block(peer["ipBlock"], end.address))
    if end.labels is None:
        return False
    # Without a namespaceSelector, a peer is in the policy's own namespace.
    namespaces = peer.get("namespaceSelector", {"matchLabels": {_NAMESPACE: namespace}})
    return selects(namespaces, {_NAMESPACE: end.namespace}) and selects(peer.get("podSelector", {}), end.labels)


def _in_block(block: Mapping[str, Any], address: str) -> bool:
    at = ipaddress.ip_address(address)
    return at in ipaddress.ip_network(block["cidr"]) and not any(at in ipaddress.ip_network(one) for one in block.get("except", []))


def _end(workload: Workload) -> End:
    return End(workload.name, workload.labels, workload.manifest["metadata"]["namespace"])


def _ports(workload: Workload) -> list[int]:
    return [port["containerPort"] for container in workload.containers for port in container.get("ports", [])]


def _target(host: str, pods: Mapping[str, End]) -> End:
    """Return the end that a host name reaches: `engine-0.engine` and `engine` are pods of the workload `engine`, others are outside."""
    return pods.get(host.rpartition(".")[2], End(host)) if host.count(".") <= 1 else End(host)


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
