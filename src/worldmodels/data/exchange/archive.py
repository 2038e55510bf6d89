"""Reading NumPy archives of strangers: nothing is unpickled, and memory depends on what a file really holds."""

import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

import numpy as np

_LARGEST = 256 << 20
"""Bytes of the largest array that is read at once."""
_LARGEST_HEADER = 10_000
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those that NumPy writes. Of the others, zipfile unpacks all at once, however few bytes are asked for."""
_KINDS = "buif"
"""Kinds of numbers: bool, unsigned, integer and floating point. Others, such as objects, could need a pickle."""


class Header(NamedTuple):
    """What an array is said to be: its shape, its dtype, and at which byte of its member the numbers begin."""

    shape: tuple[int, ...]
    dtype: np.dtype
    start: int


class Archive:
    """A ``.npz`` file, opened for reading. Use it as a context manager.

    ValueError, or an error of :mod:`zipfile` and its codecs, says what is wrong with the file. The sizes that headers
    claim are compared with the archive's directory, and large arrays are read in blocks, so that memory depends on
    what is really there.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ValueError("it is not a regular file" if path.exists() else "it does not exist")
        if not zipfile.is_zipfile(path):
            raise ValueError("it is not a whole NumPy archive, and pickled files are never loaded")
        self._zip = zipfile.ZipFile(path)
        members = [info for info in self._zip.infolist() if info.filename.endswith(".npy")]
        self._members = {info.filename.removesuffix(".npy"): info for info in members}
        if len(self._members) < len(members):
            raise ValueError("it holds two arrays with the same name")
        if any(info.compress_type not in _COMPRESSIONS for info in members):
            raise ValueError("it is compressed in another way than NumPy does; save it with np.savez_compressed")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()

    @property
    def names(self) -> list[str]:
        """The names of the arrays."""
        return list(self._members)

    @property
    def checksums(self) -> tuple[int, ...]:
        """The CRC-32 of every array, as the archive's directory has it."""
        return tuple(info.CRC for info in self._members.values())

    def header(self, name: str) -> Header:
        """The shape and dtype of an array of numbers, without reading it."""
        with self._zip.open(self._members[name]) as member:
            file = io.BytesIO(member.read(_LARGEST_HEADER))  # a header may claim gigabytes for itself
        version = np.lib.format.read_magic(file)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ValueError(f"{name} is not an array of plain numbers")
        shape, fortran, dtype = readers[version](file, max_header_size=_LARGEST_HEADER)
        if dtype.kind not in _KINDS:
            raise ValueError(f"{name} is not an array of numbers but of {dtype}, and pickled objects are never loaded")
        if fortran and len(shape) > 1:
            raise ValueError(f"{name} is stored in Fortran order; save it with np.ascontiguousarray")
        start = file.tell()
        size, there = math.prod(map(int, shape)) * dtype.itemsize, self._members[name].file_size - start
        if min(shape, default=0) < 0 or size != there:
            raise ValueError(f"{name} is said to have {size:,} bytes, and the archive has {there:,} for it")
        return Header(tuple(map(int, shape)), dtype, start)

    def read(self, name: str) -> np.ndarray:
        """A small array as a whole."""
        header = self.header(name)
        size = math.prod(header.shape) * header.dtype.itemsize
        if size > _LARGEST:
            raise ValueError(f"{name} has {size >> 20:,} MiB, more than the {_LARGEST >> 20} MiB that are read at once")
        with self._zip.open(self._members[name]) as file:
            file.read(header.start)
            return np.frombuffer(_exactly(file, size, name), header.dtype).reshape(header.shape)

    def text(self, name: str) -> str:
        """A single text, such as the name of a renderer: a NumPy array of the kind "U" without dimensions."""
        info = self._members[name]
        if info.file_size > _LARGEST_HEADER:
            raise ValueError(f"{name} is too long for a name")
        value = np.load(io.BytesIO(self._zip.read(info)), allow_pickle=False)
        if value.dtype.kind != "U" or value.ndim:
            raise ValueError(f"{name} is not a text")
        return str(value)

    def blocks(self, name: str, count: int) -> Iterator[np.ndarray]:
        """An array in blocks of ``count`` entries of its first axis; the last block may be shorter."""
        header = self.header(name)
        entry = math.prod(header.shape[1:]) * header.dtype.itemsize
        with self._zip.open(self._members[name]) as file:
            file.read(header.start)
            for first in range(0, header.shape[0], count):
                number = min(count, header.shape[0] - first)
                data = _exactly(file, number * entry, name)
                yield np.frombuffer(data, header.dtype).reshape(number, *header.shape[1:])
            if file.read(1):  # reaching the end also verifies the checksum
                raise ValueError(f"{name} is longer than it is said to be")


def _exactly(file: IO[bytes], size: int, name: str) -> bytearray:
    data = bytearray(file.read(size))  # a copy that arrays can be written to
    if len(data) != size:
        raise ValueError(f"{name} ends early: {len(data):,} of {size:,} bytes are there")
    return data
