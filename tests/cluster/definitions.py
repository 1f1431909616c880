"""CustomResourceDefinitions of KEDA and the Prometheus operator, made from the schemas that `make check-deploy` validates with.

The API server then checks our custom objects as it does on a cluster that has the operators: an unknown field is refused. What the
operators themselves would make of an object is not shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from deploy.check.result import REPOSITORY

FOLDER: Final = REPOSITORY / "deploy" / "check" / "k8s" / "crds"
_INT_OR_STRING: Final = [{"type": "integer"}, {"type": "string"}]
_KEPT: Final = frozenset({"type", "required", "enum", "pattern", "format", "minLength", "minimum", "maximum"})


def definitions() -> Iterator[dict[str, Any]]:
    """Yield a definition for each schema."""
    for file in sorted(FOLDER.glob("*.json")):
        schema = json.loads(file.read_text(encoding="utf-8"))
        kind = schema["properties"]["kind"]["const"]
        group, _, version = schema["properties"]["apiVersion"]["const"].partition("/")
        plural = f"{kind.lower()}s"
        yield {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": f"{plural}.{group}"},
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
                "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": _root(schema)}}],
            },
        }


def _root(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a whole object, whose metadata the API server checks itself."""
    properties = {name: _structural(inner, schema["$defs"]) for name, inner in schema["properties"].items() if name != "metadata"}
    return {"type": "object", "required": ["spec"], "properties": {**properties, "metadata": {"type": "object"}}}


def _structural(node: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node as the API server takes it: no references, no `const`, and unknown fields left to the request's validation."""
    if "$ref" in node:
        return _structural(named[node["$ref"].rpartition("/")[2]], named)
    if node.get("anyOf") == _INT_OR_STRING:
        return {"x-kubernetes-int-or-string": True}
    if "anyOf" in node:
        return {"x-kubernetes-preserve-unknown-fields": True}
    made = {key: value for key, value in node.items() if key in _KEPT}
    if "const" in node:
        made["enum"] = [node["const"]]
    if "items" in node:
        made["items"] = _structural(node["items"], named)
    if "properties" in node:
        made["properties"] = {name: _structural(inner, named) for name, inner in node["properties"].items()}
    elif isinstance(node.get("additionalProperties"), Mapping):
        made["additionalProperties"] = _structural(node["additionalProperties"], named)
    return made
