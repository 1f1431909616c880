"""Base images: pulled where a registry answers, and made from Debian's packages as stand-ins where none does.

A stand-in has the name of the image that it stands in for, and exists only in the private engine, so that nobody runs one unknowingly.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from deploy.check.result import REPOSITORY
from deploy.local.jars import kafka_jars
from deploy.local.process import LocalError

_RECIPES: Final = Path(__file__).with_name("stand_ins")
_LABEL: Final = "aquiline.stand-in"
_DEBIAN: Final = "aquiline/stand-in-debian"
_BASE_ARGUMENT: Final = re.compile(r"^ARG \w+_IMAGE=(\S+)$", re.MULTILINE)
_RECIPE_OF: Final = {"python": "python", "apache/kafka": "kafka", "redis": "redis", "prom/prometheus": "prometheus"}
"""By the image's name without its tag, the recipe of its stand-in."""
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")

Progress = Callable[[str], None]


def base_images(services: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the images that these services of the Compose file run or are built from, each once."""
    names = []
    for service in services:
        if "build" in service:
            names += _BASE_ARGUMENT.findall((REPOSITORY / service["build"]["dockerfile"]).read_text(encoding="utf-8"))
        else:
            names.append(service["image"])
    return list(dict.fromkeys(names))


class BaseImages:
    """Provides base images to one engine."""

    def __init__(self, variables: Mapping[str, str], *, may_stand_in: bool, progress: Progress) -> None:
        """`variables` are those with which `docker` reaches the engine; `may_stand_in` says whether stand-ins are allowed in it."""
        self._environment = {**os.environ, **variables}
        self._may_stand_in = may_stand_in
        self._progress = progress

    def provide(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """Make the images exist in the engine; return which of them are stand-ins, and which cannot be had at all."""
        stand_ins, lacking = [], []
        for name in names:
            label = self._docker("image", "inspect", "--format", f'{{{{index .Config.Labels "{_LABEL}"}}}}', name, check=False)
            if label.returncode != 0:
                self._progress(f"pulling {name}")
                pulled = self._docker("pull", "--quiet", name, check=False)
                if pulled.returncode == 0:
                    continue
                reason = pulled.stderr.strip().splitlines()[-1]
                if not self._may_stand_in:
                    raise LocalError(f"{name} cannot be pulled: {reason}")
                if name.partition(":")[0] not in _RECIPE_OF:
                    self._progress(f"{name} cannot be pulled and has no stand-in ({reason})")
                    lacking.append(name)
                    continue
                self._progress(f"{name} cannot be pulled, so a stand-in is made from Debian's packages ({reason})")
                self._stand_in(name)
            elif not label.stdout.strip():
                continue
            stand_ins.append(name)
        return stand_ins, lacking

    def _stand_in(self, name: str) -> None:
        if self._docker("image", "inspect", _DEBIAN, check=False).returncode != 0:
            self._debian()
        recipe = _RECIPE_OF[name.partition(":")[0]]
        with tempfile.TemporaryDirectory() as context:
            shutil.copytree(_RECIPES, context, dirs_exist_ok=True)
            if recipe == "python":
                (Path(context) / "pip.conf").write_text(_pip_configuration())
            if recipe == "kafka":
                (Path(context) / "libs").mkdir()
                for jar in kafka_jars():
                    shutil.copy(jar, Path(context) / "libs")
            file = Path(context) / f"{recipe}.Dockerfile"
            self._docker("build", "--quiet", "--tag", name, "--label", f"{_LABEL}=true", "--file", str(file), context)

    def _debian(self) -> None:
        """Import a minimal Debian from the package archive that this machine uses, with the machine's certificates."""
        self._progress("making a minimal Debian with debootstrap, once")
        targets = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", "Created-By: Packages"],  # noqa: S607
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        site, release = targets[0].split()
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "root"
            command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", release, str(root), site]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            if done.returncode != 0:
                raise LocalError(f"debootstrap failed: {(done.stdout + done.stderr)[-1_000:]}")
            if _CERTIFICATES.is_file():
                shutil.copy(_CERTIFICATES, root / _CERTIFICATES.relative_to("/"))
            archive = Path(folder) / "root.tar"
            subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)  # noqa: S603, S607
            self._docker("import", "--change", f"LABEL {_LABEL}=true", str(archive), _DEBIAN)

    def _docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(["docker", *arguments], env=self._environment, capture_output=True, text=True, check=False)  # noqa: S603, S607
        if check and done.returncode != 0:
            raise LocalError(f"docker {' '.join(arguments)} failed: {(done.stdout + done.stderr)[-2_000:]}")
        return done


def _pip_configuration() -> str:
    """Return this machine's configuration of pip as a file, without the paths that only exist here."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    options = {"cert": str(_CERTIFICATES)}
    for line in listed.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2]
        text = str(ast.literal_eval(value))
        if key.startswith((":env:.", "global.")) and name != "cert" and not text.startswith("/"):
            options[name] = text
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())
