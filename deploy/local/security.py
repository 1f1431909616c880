"""Certificates and an account for local servers with TLS and authentication, created by openssl in a folder.

They protect nothing; tests use them to connect the way production does.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.process import LocalError, MissingError


def _password() -> str:
    return secrets.token_hex(16)


@dataclass(frozen=True)
class LocalSecurity:
    """A certificate authority, a server certificate for loopback, a client certificate and one account."""

    folder: Path
    username: str = "aquiline"
    password: str = field(default_factory=_password, repr=False)

    @property
    def ca_file(self) -> Path:
        """Return the authority's certificate (PEM)."""
        return self.folder / "ca.pem"

    @property
    def server_cert_file(self) -> Path:
        """Return the server's certificate (PEM)."""
        return self.folder / "server.pem"

    @property
    def server_key_file(self) -> Path:
        """Return the server's private key (PEM, PKCS #8)."""
        return self.folder / "server.key"

    @property
    def cert_file(self) -> Path:
        """Return the client's certificate (PEM)."""
        return self.folder / "client.pem"

    @property
    def key_file(self) -> Path:
        """Return the client's private key (PEM, PKCS #8)."""
        return self.folder / "client.key"

    def create(self) -> None:
        """Create the missing files; raise LocalError when openssl is not installed or fails."""
        if self.cert_file.is_file():
            return
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        ca_key = self.folder / "ca.key"
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=aquiline local authority",
            "-keyout", str(ca_key), "-out", str(self.ca_file),
        )  # fmt: skip
        for cert, key, name in (
            (self.server_cert_file, self.server_key_file, "localhost"),
            (self.cert_file, self.key_file, self.username),
        ):
            request = cert.with_suffix(".csr")
            _openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-keyout", str(key), "-out", str(request))
            names = cert.with_suffix(".ext")
            names.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            _openssl(
                "x509", "-req", "-in", str(request), "-CA", str(self.ca_file), "-CAkey", str(ca_key), "-CAcreateserial",
                "-days", "2", "-extfile", str(names), "-out", str(cert),
            )  # fmt: skip


def _openssl(*arguments: str) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        raise MissingError("openssl creates the local certificates and is not installed (Debian: `apt-get install openssl`)")
    done = subprocess.run([openssl, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - ours
    if done.returncode != 0:
        raise LocalError(f"openssl {arguments[0]} failed: {done.stderr[-1_000:]}")
