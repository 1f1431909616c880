"""Fetches Apache Kafka's jars with the machine's Maven client and checks each against the lock file.

The lock names coordinates and checksums and no host: where jars come from is the Maven client's own setting.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deploy.local.process import LocalError, MissingError

LOCK_FILE: Final = Path(__file__).with_name("kafka.lock")
CACHE: Final = Path(__file__).parents[2] / ".cache" / "kafka"
_PLUGIN: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"


def read_lock(file: Path = LOCK_FILE) -> dict[str, str]:
    """Return the SHA-256 of each `group:artifact:version`; raise LocalError for any other line."""
    locked = {}
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        coordinates, _, checksum = line.partition(" ")
        if coordinates.count(":") != 2 or len(checksum) != 64:  # noqa: PLR2004 - SHA-256 in hexadecimal
            raise LocalError(f"{file}:{number} is {line!r}; expected `group:artifact:version sha256`")
        locked[coordinates] = checksum
    return locked


def kafka_jars() -> list[Path]:
    """Return the verified jars, after fetching those that the cache lacks; raise LocalError when that fails."""
    locked = read_lock()
    folder = CACHE / hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()[:16]
    if not folder.is_dir():
        _fetch(locked, folder)
    jars = [folder / _jar_name(coordinates) for coordinates in locked]
    for jar, checksum in zip(jars, locked.values(), strict=True):
        found = hashlib.sha256(jar.read_bytes()).hexdigest() if jar.is_file() else "nothing"
        if found != checksum:
            shutil.rmtree(folder)
            raise LocalError(f"{jar.name} has SHA-256 {found}, expected {checksum}; it has been deleted, run the command again")
    return jars


def _jar_name(coordinates: str) -> str:
    _, artifact, version = coordinates.split(":")
    return f"{artifact}-{version}.jar"


def _fetch(locked: Mapping[str, str], folder: Path) -> None:
    mvn = shutil.which("mvn")
    if mvn is None:
        raise MissingError(
            "Kafka's jars are fetched with Maven, and `mvn` is not installed; "
            "install it (Debian: `apt-get install maven openjdk-17-jre-headless`)"
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    pom = CACHE / "pom.xml"
    pom.write_text(_pom(locked))
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    command = [mvn, "-B", "-f", str(pom), f"-Dmaven.repo.local={CACHE / 'repository'}", _PLUGIN, f"-DoutputDirectory={partial}"]
    tail: list[str] = []
    copied = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as fetching:  # noqa: S603 - ours
        for line in fetching.stdout or ():
            tail = [*tail[-20:], line]
            if " Copying " in line:
                copied += 1
                _progress(f"fetching Kafka: {copied} of {len(locked)} jars")
    if fetching.returncode != 0:
        raise MissingError(
            f"Maven could not fetch Kafka's jars (status {fetching.returncode}); check Maven's settings. Its output:\n{''.join(tail)}"
        )
    shutil.rmtree(CACHE / "repository", ignore_errors=True)
    partial.rename(folder)


def _pom(locked: Mapping[str, str]) -> str:
    """Return a pom with exactly the locked jars, so that Maven resolves no others."""
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>"
        "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions></dependency>\n"
        for group, artifact, version in (coordinates.split(":") for coordinates in locked)
    )
    return (
        "<project><modelVersion>4.0.0</modelVersion><groupId>aquiline</groupId><artifactId>local-kafka</artifactId>"
        f"<version>1</version><packaging>pom</packaging>\n<dependencies>\n{dependencies}</dependencies></project>\n"
    )


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{text}")
        sys.stderr.flush()
