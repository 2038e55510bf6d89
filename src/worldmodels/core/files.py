"""Atomic files with checksums: a file is either complete or absent, and damage is detected when it is read.

Everything is written under a temporary name beside its target, flushed to the disk and renamed. Tensors are stored as
safetensors with a digest in the metadata; JSON files may carry a checksum of their content. Nothing is pickled.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from worldmodels.core.errors import UserError

LARGEST_JSON = 64 << 20
"""Bytes of the largest JSON file that is read."""
_TEMPORARY_FILE = re.compile(r"\..+\.[0-9]+\.tmp")
_TEMPORARY_FOLDER = re.compile(r"\..+\.tmp")
_REPAIR = "delete it and run the same command again, or restore it from a copy"


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError that is raised while ``path`` is written into a :class:`UserError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"could not write {path}: {reason}; free space or fix permissions, then run again") from None


def flush(path: Path) -> None:
    """Flush a file, or the entries of a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_name(text: str) -> str:
    """A name as a part of the names of files: "gym:ALE/Pong-v5" gives "gym-ALE-Pong-v5"."""
    return re.sub(r"[^A-Za-z0-9._+=-]+", "-", text).strip("-.") or "unnamed"


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` atomically: after a crash, the file holds either the old or the new content.

    Creates missing parent directories. Raises :class:`UserError` if the system cannot write the file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.unlink(missing_ok=True)  # of a killed process with the same number
            # Not through a link that somebody else made under this name.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with open(os.open(temporary, flags, 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            flush(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def sweep(directory: Path) -> None:
    """Remove what killed processes left in ``directory``: the temporary files and folders of this module.

    Neither links nor folders below ``directory`` are followed. Only the one process that may write to ``directory`` may
    do this.
    """
    for entry in list(os.scandir(directory)):
        if entry.is_file(follow_symlinks=False) and _TEMPORARY_FILE.fullmatch(entry.name):
            Path(entry).unlink(missing_ok=True)
        elif entry.is_dir(follow_symlinks=False) and _TEMPORARY_FOLDER.fullmatch(entry.name):
            shutil.rmtree(entry, ignore_errors=True)


def check_regular(path: Path, kind: str) -> None:
    """Raise :class:`UserError` unless ``path`` is a regular file or a link to one.

    Opening anything else could wait for ever (a pipe) or never end (a device). kind: what is expected, for the message.
    """
    if not path.is_file():
        problem = "is not a regular file" if path.exists() else "does not exist"
        raise UserError(f"{path} {problem}; expected {kind} written by worldmodels")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_json(path: Path, content: Any, checksum: bool = False) -> None:
    """Write strict JSON (no NaN or infinity) atomically; ``checksum`` adds a checksum to the content, a dictionary."""
    try:
        data = json_bytes(content, checksum)
    except ValueError as error:
        raise UserError(f"{path} was not written: a value is not a finite number ({error})") from None
    write_bytes(path, data)


def json_bytes(content: Any, checksum: bool = False) -> bytes:
    """What :func:`write_json` writes. Raises ValueError for NaN and infinity."""
    if checksum:
        content = {**content, "checksum": _digest(_canonical(content))}
    return json.dumps(content, indent=2, allow_nan=False).encode() + b"\n"


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, allow_nan=False).encode()


def read_json(path: Path, checksum: bool = False, repair: str = _REPAIR) -> Any:
    """Read a JSON file. Raises :class:`UserError` if it is missing, too large, not valid JSON or altered.

    checksum: verify and remove the checksum that :func:`write_json` added; repair: what the error about a damaged file
    tells the user to do.
    """
    check_regular(path, "a JSON file")
    try:
        size = path.stat().st_size
        if size > LARGEST_JSON:
            limit = f"more than the {LARGEST_JSON >> 20} MiB of the largest JSON file of worldmodels"
            raise UserError(
                f"{path} is damaged or of another program, it is too large: {size >> 20:,} MiB, {limit}; {repair}"
            )
        data = path.read_bytes()
    except ValueError:  # a path that no system accepts
        raise UserError(f"{path} is damaged: it is not valid JSON; {repair}") from None
    return parsed_json(data, path, checksum, repair)


def parsed_json(data: bytes, name: Path | str, checksum: bool = False, repair: str = _REPAIR) -> Any:
    """The content of a JSON file from its bytes; ``name`` says in errors which file it is. See :func:`read_json`."""
    try:
        content = json.loads(data)
        if not checksum:
            return content
        expected = content.pop("checksum", None) if isinstance(content, dict) else None
        actual = _digest(_canonical(content))
    except (ValueError, RecursionError):
        raise UserError(f"{name} is damaged: it is not valid JSON; {repair}") from None
    if expected != actual:
        raise UserError(f"{name} is damaged or was edited: its checksum does not match; {repair}")
    return content


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of the names, dtypes, shapes and bytes of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        if tensor.numel():  # an empty tensor cannot be viewed as bytes
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(path: Path, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
    """Save tensors and JSON-serialisable ``meta`` as one safetensors file, atomically and with a digest of both."""
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(dict(meta), sort_keys=True)
    digest = _digest((tensors_digest(copies) + text).encode())
    write_bytes(path, _serialised(copies, {"meta": text, "digest": digest}))


def _serialised(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """The bytes of a safetensors file. The metadata are sorted, so that equal content always gives equal bytes."""
    data = save(tensors, metadata=metadata)
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # keep the tensor data aligned to 8 bytes
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(data)[8 + size :]])


def load_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Load and verify the tensors and ``meta`` of a file that :func:`save_tensors` wrote.

    Raises :class:`UserError` if the file is missing, damaged or of another format.
    """
    check_regular(path, "a safetensors file")
    try:
        with open(path, "rb") as file:
            header_size = int.from_bytes(file.read(8), "little")
            if header_size > min(10_000_000, path.stat().st_size):
                raise ValueError
            metadata = json.loads(file.read(header_size)).get("__metadata__", {})
        tensors = load_file(path)
        text = metadata["meta"]
        intact = metadata["digest"] == _digest((tensors_digest(tensors) + text).encode())
        meta = json.loads(text)
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise UserError(
            f"{path} is not a safetensors file of worldmodels or is damaged (pickled .pt and .npz files are "
            f"never loaded); {_REPAIR}"
        ) from None
    if not intact or not isinstance(meta, dict):
        raise UserError(f"{path} is damaged: its digest does not match; {_REPAIR}")
    return tensors, meta


@contextlib.contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """A temporary directory for the block to fill; it becomes ``target`` at the end, or is removed after an error."""
    if not target.name:  # such as ".", which cannot be replaced
        raise UserError(f"expected the name of a new folder, got {str(target)!r}; choose another one")
    temporary = target.with_name(f".{target.name}.tmp")
    with disk_errors(target):
        if temporary.is_symlink():
            temporary.unlink()
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for path in (temporary, *temporary.rglob("*")):
                flush(path)
            os.replace(temporary, target)
            flush(target.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor as a NumPy array, which shares memory with a CPU tensor."""
    return tensor.detach().cpu().numpy()
