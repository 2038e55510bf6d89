"""Files that are either whole or absent, and that notice when a bit has flipped.

Everything is written to a temporary name beside its target, flushed to the disk and renamed. Tensors are safetensors
with a digest of their bytes in the metadata; JSON files that matter carry a digest of their content. No pickle.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from worldmodels.core.errors import UserError

_LARGEST_JSON = 64 << 20
_REPAIR = "delete it and run the same command again, or restore it from a copy"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system says while ``path`` is written into a :class:`UserError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"could not write {path}: {reason}; free space or fix permissions, then run again") from None


def _sync(path: Path) -> None:
    """Flush a file, or the names in a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that after a crash the old or the new content is there, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sweep(directory: Path) -> None:
    """Remove what killed processes left half written; only for the one process that may write there."""
    for litter in list(directory.rglob(".*.tmp")):
        if litter.is_dir() and not litter.is_symlink():
            shutil.rmtree(litter, ignore_errors=True)
        else:
            litter.unlink(missing_ok=True)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_json(path: Path, content: Any, checksum: bool = False) -> None:
    """Write strict JSON (no NaN) atomically; with ``checksum`` a digest of the content is stored in it."""
    if checksum:
        content = {**content, "checksum": _digest(_canonical(content))}
    try:
        text = json.dumps(content, indent=2, allow_nan=False)
    except ValueError as error:
        raise UserError(f"{path} was not written: a value is not a finite number ({error})") from None
    write_bytes(path, text.encode() + b"\n")


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def read_json(path: Path, checksum: bool = False, repair: str = _REPAIR) -> Any:
    """Read JSON; a missing, unreadable or altered file is a :class:`UserError` that ends with ``repair``.

    With ``checksum`` the content is a dictionary that :func:`write_json` gave one.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a JSON file written by worldmodels")
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError
        content = json.loads(path.read_bytes())
        if not checksum:
            return content
        expected = content.pop("checksum", None) if isinstance(content, dict) else None
        actual = _digest(_canonical(content))
    except (ValueError, RecursionError):
        raise UserError(f"{path} is damaged: it is not valid JSON; {repair}") from None
    if expected != actual:
        raise UserError(f"{path} is damaged or was edited: its checksum does not match; {repair}")
    return content


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        if tensor.numel():  # an empty one cannot be seen as bytes
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
    """Save tensors and JSON-able ``meta`` as one safetensors file, atomically and with a digest of both."""
    ready = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(dict(meta), sort_keys=True)
    digest = _digest((tensors_digest(ready) + text).encode())
    write_bytes(path, _serialised(ready, {"meta": text, "digest": digest}))


def _serialised(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """As safetensors; equal content gives equal bytes, which the library alone, with its random order, does not."""
    data = save(tensors, metadata=metadata)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data stays aligned
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(data)[8 + size :]])


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Load what :func:`save_tensors` wrote and verify it; anything else is a :class:`UserError`."""
    if not path.is_file():
        raise UserError(f"{path} does not exist; expected a safetensors file written by worldmodels")
    try:
        with open(path, "rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            if header_size > min(10_000_000, path.stat().st_size):
                raise ValueError
            metadata = json.loads(file.read(header_size)).get("__metadata__", {})
        tensors = load_file(path)
        text = metadata["meta"]
        good = metadata["digest"] == _digest((tensors_digest(tensors) + text).encode())
        meta = json.loads(text)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise UserError(
            f"{path} is not a safetensors file of worldmodels or is damaged (pickled .pt and .npz files are "
            f"never loaded); {_REPAIR}"
        ) from None
    if not good or not isinstance(meta, dict):
        raise UserError(f"{path} is damaged: its digest does not match; {_REPAIR}")
    return tensors, meta


@contextlib.contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Fill a temporary directory that becomes ``target`` only when the block ends well."""
    temporary = target.with_name(f".{target.name}.tmp")
    with disk_errors(target):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for path in (temporary, *temporary.rglob("*")):
                _sync(path)
            os.replace(temporary, target)
            _sync(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as a NumPy array (no copy on the CPU)."""
    return tensor.detach().cpu().numpy()
