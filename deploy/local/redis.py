"""Debian's redis-server as one process without persistence."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from deploy.local.process import LocalServer, MissingError
from deploy.local.security import LocalSecurity

_STARTED: Final = "Ready to accept connections"
_INSTALL: Final = ("apt-get", "install", "-y", "--no-install-recommends", "redis-server")


class LocalRedis(LocalServer):
    """A Redis. With `security` clients need TLS and the account's name and password.

    `arguments` are added to the command line; an ACL file among them replaces that account.
    """

    name = "redis"

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        security: LocalSecurity | None = None,
        arguments: Sequence[str] = (),
        detached: bool = False,
    ) -> None:
        """Keep configuration and log in `folder`; listen on `port` of loopback, or a free one."""
        super().__init__(folder, port=port, detached=detached)
        self.security = security
        self._arguments = list(arguments)

    @property
    def url(self) -> str:
        """Return the value for `redis.url`."""
        return f"{'rediss://localhost' if self.security else 'redis://127.0.0.1'}:{self.port}/0"

    def _prepare(self) -> None:
        lines = ["bind 127.0.0.1", 'save ""', "appendonly no", "maxmemory 256mb", "maxmemory-policy allkeys-lru", f"dir {self.folder}"]
        if self.security is None:
            lines += [f"port {self.port}", "protected-mode no"]
        else:
            self.security.create()
            lines += [
                "port 0",
                f"tls-port {self.port}",
                f"tls-cert-file {self.security.server_cert_file}",
                f"tls-key-file {self.security.server_key_file}",
                f"tls-ca-cert-file {self.security.ca_file}",
                "tls-auth-clients optional",
            ]
        if self.security is not None and "--aclfile" not in self._arguments:
            lines += ["user default off", f"user {self.security.username} on >{self.security.password} ~* +@all"]
        config = self.folder / "redis.conf"
        config.touch(mode=0o600)
        config.write_text("\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        return [redis_server(), str(self.folder / "redis.conf"), *self._arguments]

    def _serves(self) -> bool:
        if _STARTED not in self.log_file.read_text(errors="replace"):
            return False  # another server may answer on the port
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as plain:
                if self.security is None:
                    return _answers_ping(plain)
                context = ssl.create_default_context(cafile=str(self.security.ca_file))
                with context.wrap_socket(plain, server_hostname="localhost") as secured:
                    return _answers_ping(secured)
        except OSError:
            return False


def redis_server() -> str:
    """Return redis-server's path, after installing it where this process may; raise MissingError when it is not available."""
    found = shutil.which("redis-server")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        sys.stderr.write("redis-server is missing: installing it with apt-get\n")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        subprocess.run(_INSTALL, check=False, stdout=subprocess.DEVNULL, env=environment)  # noqa: S603 - ours
        found = shutil.which("redis-server")
    if found is None:
        raise MissingError("redis-server is not installed; install it (Debian: `apt-get install redis-server`)")
    return found


def _answers_ping(connection: socket.socket) -> bool:
    connection.sendall(b"PING\r\n")
    return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
