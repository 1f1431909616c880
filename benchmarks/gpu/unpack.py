"""Unpack stock SGLang, and FA3's kernels where they were brought, from the parts that a GPU host was sent: `unpack.py PARTS SITE`.

`site.*` is a tar packed with zstandard and split, `fa3.*` one shared library of 1.1 GB likewise.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path
from typing import IO, cast

import zstandard

_WINDOW = 2**31
"""The library was packed with a window of 2 GB, which finds its repeated kernels."""


class Parts:
    """The parts of one file, read one after the other."""

    def __init__(self, files: list[Path]) -> None:
        """`files` in their order."""
        self._files = iter(files)
        self._open: IO[bytes] | None = None

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; none at the end of the last part."""
        while True:
            if self._open is None:
                following = next(self._files, None)
                if following is None:
                    return b""
                self._open = following.open("rb")
            piece = self._open.read(size)
            if piece:
                return piece
            self._open.close()
            self._open = None


def main() -> None:
    """Unpack what is there; SGLang itself has to be."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: unpack.py PARTS SITE")
    parts, site = Path(sys.argv[1]), Path(sys.argv[2])
    packed = sorted(parts.glob("site.*"))
    if not packed:
        raise SystemExit(f"{parts} holds no site.* parts of the packed SGLang")
    unpacker = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    with unpacker.stream_reader(cast("IO[bytes]", Parts(packed))) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        archive.extractall(site, filter="tar")
    kernels = sorted(parts.glob("fa3.*"))
    if kernels:
        with (site / "sgl_kernel" / "flash_ops.abi3.so").open("wb") as out:
            unpacker.copy_stream(cast("IO[bytes]", Parts(kernels)), out)
        print(f"FA3's kernels: {out.name}")


if __name__ == "__main__":
    main()
