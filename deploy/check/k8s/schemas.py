"""Validates objects against the schemas of several Kubernetes releases and of the custom resources; unknown fields are errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate

from deploy.check.k8s.rendered import Manifest, Rendered, title_of

VERSIONS: Final = ("1.33", "1.35", "1.37")
_OURS: Final = Path(__file__).parent / "crds"


def problems(overlay: Rendered) -> Iterator[str]:
    """Yield each violation of a schema."""
    for manifest in overlay.objects:
        custom = _OURS / f"{manifest['kind']}.json"
        if custom.is_file():
            yield from _custom(manifest, custom)
        else:
            yield from _own(manifest)


def _own(manifest: Manifest) -> Iterator[str]:
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(dict(manifest), version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            yield f"{title_of(manifest)}: {manifest['apiVersion']} has no {manifest['kind']} in Kubernetes {version}"
        except kubernetes_validate.ValidationError as error:
            yield f"{title_of(manifest)}: Kubernetes {version}: {_place(error)}: {error.message[:300]}"
            return


def _custom(manifest: Manifest, file: Path) -> Iterator[str]:
    for error in jsonschema.Draft202012Validator(_schema(file)).iter_errors(manifest):
        yield f"{title_of(manifest)}: {_place(error)}: {error.message[:300]}"


@cache
def _schema(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _place(error: jsonschema.ValidationError) -> str:
    return ".".join(str(part) for part in error.absolute_path) or "the object"
