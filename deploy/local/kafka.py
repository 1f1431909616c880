"""Apache Kafka as one KRaft process, broker and controller in one, with small heap and quick start."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.local.jars import kafka_jars
from deploy.local.process import LocalError, LocalServer, MissingError, free_port
from deploy.local.security import LocalSecurity

_CLUSTER_ID: Final = "YXF1aWxpbmUtbG9jYWwtMQ"
_STARTED: Final = "Kafka Server started"
_JVM: Final = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Xshare:auto",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)
_SETTINGS: Final = {
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "log.retention.check.interval.ms": "1000",
    "min.insync.replicas": "1",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "broker.heartbeat.interval.ms": "250",
    "broker.session.timeout.ms": "2000",  # a killed broker can register again after this
    "controlled.shutdown.enable": "false",
}


class LocalKafka(LocalServer):
    """A single-node Kafka. With `security` clients need TLS, their own certificate and a SCRAM log-in.

    `properties` are added to the broker's own and override them.
    """

    name = "kafka"

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        security: LocalSecurity | None = None,
        properties: Mapping[str, str] | None = None,
        detached: bool = False,
    ) -> None:
        """Keep data, configuration and log in `folder`; listen on `port` of loopback, or a free one."""
        super().__init__(folder, port=port, detached=detached)
        self.security = security
        self._properties = dict(properties or {})
        self._controller_port = free_port()
        self._internal_port = free_port()
        self._jars: list[Path] = []

    @property
    def bootstrap(self) -> str:
        """Return `host:port` of the broker."""
        return f"{'localhost' if self.security else '127.0.0.1'}:{self.port}"

    @property
    def url(self) -> str:
        """Return the value for `bus.url`."""
        return f"kafka://{self.bootstrap}"

    def _prepare(self) -> None:
        self._jars = kafka_jars()
        if self.security is not None:
            self.security.create()
        config = self.folder / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in self._settings().items()))
        if not (self.folder / "data" / "meta.properties").is_file():
            account = []
            if self.security is not None:
                scram = f"SCRAM-SHA-512=[name={self.security.username},password={self.security.password}]"
                account = ["--add-scram", scram]
            command = [*self._java(), "kafka.tools.StorageTool", "format", "-t", _CLUSTER_ID, "-c", str(config), *account]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
            if done.returncode != 0:
                raise LocalError(f"Kafka cannot prepare {self.folder}: {(done.stdout + done.stderr)[-2_000:]}")

    def _settings(self) -> dict[str, str]:
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "INTERNAL",
            "listeners": (
                f"CLIENT://127.0.0.1:{self.port},INTERNAL://127.0.0.1:{self._internal_port},CONTROLLER://127.0.0.1:{self._controller_port}"
            ),
            "advertised.listeners": f"CLIENT://{self.bootstrap},INTERNAL://127.0.0.1:{self._internal_port}",
            "listener.security.protocol.map": (
                f"CLIENT:{'SASL_SSL' if self.security else 'PLAINTEXT'},INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT"
            ),
            "log.dirs": str(self.folder / "data"),
            **_SETTINGS,
            **self._properties,
        }
        if self.security is not None:
            keystore = self.folder / "server-keystore.pem"
            keystore.write_text(self.security.server_key_file.read_text() + self.security.server_cert_file.read_text())
            keystore.chmod(0o600)
            settings |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(keystore),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self.security.ca_file),
                "listener.name.client.ssl.client.auth": "required",
                "sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "listener.name.client.scram-sha-512.sasl.jaas.config": (
                    "org.apache.kafka.common.security.scram.ScramLoginModule required;"
                ),
            }
        return settings

    def _java(self) -> list[str]:
        java = shutil.which("java")
        if java is None:
            raise MissingError("Kafka needs Java 17 and `java` is not installed (Debian: `apt-get install openjdk-17-jre-headless`)")
        return [java, *_JVM, "-cp", ":".join(str(jar) for jar in self._jars)]

    def _command(self) -> list[str]:
        return [*self._java(), "kafka.Kafka", str(self.folder / "server.properties")]

    def _serves(self) -> bool:
        return _STARTED in self.log_file.read_text(errors="replace") and self._accepts()
