"""ONNX Runtime for browsers: three files of one npm package, of a pinned version and with a checked sum.

integrity = "sha512-" + base64(SHA-512(package)), as npm's own lock files write it.
"""

import base64
import hashlib
import io
import tarfile
import urllib.request
from pathlib import Path

from distill_lib.engine.files import atomic
from distill_lib.engine.messages import place

VERSION = "1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""The build for WebAssembly alone; without headers of isolation it computes in one thread."""
URL = f"https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz"


def integrity(data: bytes) -> str:
    """The sum of a package as npm writes it."""
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


def package(folder: Path) -> bytes:
    """The package of VERSION, from `folder` if it lies there, else fetched once from the npm registry and kept there.

    Raises:
        ValueError: it cannot be fetched; or its sum is not INTEGRITY, and then nothing is kept.
    """
    path = folder / URL.rpartition("/")[2]
    if path.exists():
        return _checked(path.read_bytes(), place(path))
    try:
        with urllib.request.urlopen(URL, timeout=60) as answer:
            data = answer.read()
    except OSError as error:
        raise ValueError(
            f"the npm registry does not answer ({error}); fetch {URL} on a machine that is online, put the file at "
            f"{place(path)} and run again"
        ) from error
    _checked(data, URL)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(path) as part:
        part.write_bytes(data)
    return data


def _checked(data: bytes, where: str) -> bytes:
    if (total := integrity(data)) != INTEGRITY:
        raise ValueError(f"{where} is not onnxruntime-web {VERSION}: its sum is {total}, not {INTEGRITY}; remove it")
    return data


def unpacked(data: bytes) -> dict[str, bytes]:
    """The FILES of a package by name.

    Raises:
        ValueError: one is not in it.
    """
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for name in FILES:
            try:
                member = archive.extractfile(f"package/dist/{name}")
            except KeyError:
                member = None
            if member is None:
                raise ValueError(f"the package of onnxruntime-web holds no file dist/{name}")
            files[name] = member.read()
    return files
