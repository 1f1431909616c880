"""etcd, API server, controller manager and scheduler as processes on free ports of loopback, and kubectl against them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from deploy.local.process import LocalServer, MissingError, free_port
from tests.cluster.binaries import Binaries

_VENV_BIN: Final = Path(sys.executable).parent
_TIMEOUT_S: Final = 30


class Etcd(LocalServer):
    """The API server's store."""

    name = "etcd"

    @property
    def url(self) -> str:
        """Return its client address."""
        return f"http://127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        if shutil.which("etcd") is None:
            raise MissingError("The API server needs etcd, and `etcd` is not installed (Debian: `apt-get install etcd-server`)")

    def _command(self) -> list[str]:
        peer = f"http://127.0.0.1:{free_port()}"
        return [
            "etcd",
            f"--data-dir={self.folder / 'data'}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
        ]

    def _serves(self) -> bool:
        return self._accepts()


class ApiServer(LocalServer):
    """kube-apiserver with RBAC and its default admission plug-ins, Pod Security among them; one token has every right."""

    name = "kube-apiserver"
    start_timeout_s = 180.0

    def __init__(self, folder: Path, binaries: Binaries, etcd: Etcd) -> None:
        """Serve what `etcd` holds."""
        super().__init__(folder, port=None, detached=False)
        self.token = secrets.token_hex(16)
        self._binaries = binaries
        self._etcd = etcd

    @property
    def url(self) -> str:
        """Return its address."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def certificate(self) -> Path:
        """Return the certificate that it signed itself, which clients trust."""
        return self.folder / "certificates" / "apiserver.crt"

    @property
    def account_key(self) -> Path:
        """Return the key that signs the tokens of service accounts."""
        return self.folder / "account.key"

    @property
    def kubeconfig(self) -> Path:
        """Return the file with which every client connects."""
        return self.folder / "kubeconfig"

    def _prepare(self) -> None:
        subprocess.run(["openssl", "genrsa", "-out", self.account_key, "2048"], capture_output=True, check=True)  # noqa: S607 - the system's
        (self.folder / "tokens.csv").write_text(f"{self.token},admin,admin,system:masters\n")
        cluster = {"server": self.url, "certificate-authority": str(self.certificate)}
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "admin", "user": {"token": self.token}}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
                    "current-context": "test",
                }
            )
        )

    def _command(self) -> list[str]:
        return [
            str(self._binaries.folder / self.name),
            f"--etcd-servers={self._etcd.url}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.certificate.parent}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            f"--service-account-key-file={self.account_key}",
            f"--service-account-signing-key-file={self.account_key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            "--endpoint-reconciler-type=none",
            "--allow-privileged=true",  # so that only Pod Security refuses a privileged pod
        ]

    def _serves(self) -> bool:
        try:
            return self._accepts() and self.certificate.is_file() and self.ask("GET", "/readyz") == b"ok"
        except OSError:
            return False

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, kind: str = "application/json") -> bytes:
        """Send one request and return the answer's body; raise urllib.error.HTTPError for a refusal."""
        request = urllib.request.Request(  # noqa: S310 - https, and ours
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": kind},
        )
        context = ssl.create_default_context(cafile=str(self.certificate))
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S, context=context) as answer:  # noqa: S310 - likewise
            read: bytes = answer.read()
            return read


class _Client(LocalServer):
    """A program of the control plane that works on an API server."""

    options: tuple[str, ...] = ()

    def __init__(self, folder: Path, binaries: Binaries, api: ApiServer) -> None:
        """Work on `api`."""
        super().__init__(folder, port=None, detached=False)
        self._binaries = binaries
        self.api = api

    @property
    def url(self) -> str:
        """Return the address of its health page."""
        return f"https://127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        """Write nothing: its options say everything."""

    def _command(self) -> list[str]:
        return [
            str(self._binaries.folder / self.name),
            f"--kubeconfig={self.api.kubeconfig}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder / 'certificates'}",
            "--leader-elect=false",
            *self.options,
        ]

    def _serves(self) -> bool:
        return self._accepts()


class ControllerManager(_Client):
    """kube-controller-manager; nodes are not its concern, since no kubelet renews their leases."""

    name = "kube-controller-manager"
    options = ("--controllers=*,-node-lifecycle-controller",)

    def _command(self) -> list[str]:
        key, certificate = self.api.account_key, self.api.certificate
        return [*super()._command(), f"--service-account-private-key-file={key}", f"--root-ca-file={certificate}"]


class Scheduler(_Client):
    """kube-scheduler with its default plug-ins."""

    name = "kube-scheduler"


class ControlPlane:
    """The four servers, started in order and ended in reverse."""

    def __init__(self, folder: Path, binaries: Binaries) -> None:
        """Keep data and logs in `folder`."""
        self.etcd = Etcd(folder / "etcd", port=None, detached=False)
        self.api = ApiServer(folder / "api", binaries, self.etcd)
        self._servers = (
            self.etcd,
            self.api,
            ControllerManager(folder / "controllers", binaries, self.api),
            Scheduler(folder / "scheduler", binaries, self.api),
        )

    def __enter__(self) -> Self:
        for server in self._servers:
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in reversed(self._servers):
            server.stop()

    def environment(self) -> dict[str, str]:
        """Return the variables with which a shell's kubectl, and the `aquiline` beside this Python, are the tests'."""
        path = f"{_VENV_BIN}:{os.environ['PATH']}"
        return {"PATH": path, "HOME": str(self.api.folder), "KUBECONFIG": str(self.api.kubeconfig)}
