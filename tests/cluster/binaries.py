"""Builds the Kubernetes control plane from its Go module, once: `control_plane/go.mod` names the version and `go.sum` every checksum.

The machine's own settings say which Go toolchain builds it and where modules come from. etcd is the system's.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.local import LocalError, MissingError

MODULE: Final = Path(__file__).with_name("control_plane")
CACHE: Final = Path(__file__).parents[2] / ".cache" / "cluster"
PROGRAMS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
_COMPILERS: Final = "2"
"""Packages compiled at once: each takes up to 2 GB of memory."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """The folder that holds `PROGRAMS`, their version, and what building them took; `built` says that this call built them."""

    folder: Path
    version: str
    build_s: float
    built: bool


def kubernetes_version() -> str:
    """Return the version that go.mod requires, such as `v1.34.4`."""
    required = re.search(r"^\s*(?:require )?k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(), re.MULTILINE)
    if required is None:
        raise LocalError(f"{MODULE / 'go.mod'} requires no k8s.io/kubernetes")
    return required[1]


def binaries(say: Callable[[str], None]) -> Binaries:
    """Return the control plane's programs, after building them when the cache has none of this version; raise LocalError when it fails."""
    version = kubernetes_version()
    content = b"".join((MODULE / name).read_bytes() for name in ("go.mod", "go.sum"))
    folder = CACHE / f"kubernetes-{version}-{hashlib.sha256(content).hexdigest()[:16]}"
    record = folder / "build.json"
    if record.is_file():
        return Binaries(folder, version, **json.loads(record.read_text()), built=False)
    go = shutil.which("go")
    if go is None:
        raise MissingError("The control plane is built with Go, and `go` is not installed; install Go 1.24 or newer (https://go.dev/dl)")
    say(f"building Kubernetes {version} from its Go module: some 12 minutes of processor time, once")
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    started = time.perf_counter()
    for program in PROGRAMS:
        _build(go, program, partial, version)
        say(f"built {program}, {time.perf_counter() - started:.0f} s after the start")
    took = {"build_s": round(time.perf_counter() - started, 1)}
    (partial / record.name).write_text(json.dumps(took))
    partial.rename(folder)
    return Binaries(folder, version, **took, built=True)


def _build(go: str, program: str, folder: Path, version: str) -> None:
    """Build one program into `folder`; raise LocalError when that fails."""
    stamp = f"-s -w -X k8s.io/component-base/version.gitVersion={version}"
    command = [go, "build", "-mod=readonly", "-trimpath", "-p", _COMPILERS, f"-ldflags={stamp}", "-o", f"{folder}/"]
    done = subprocess.run(
        [*command, f"k8s.io/kubernetes/cmd/{program}"],
        cwd=MODULE,
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise LocalError(f"`go build` of {program} ended with {done.returncode}; the end of its output:\n{done.stderr[-2_000:]}")
