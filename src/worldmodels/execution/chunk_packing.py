"""Chunks of work on their way to worker processes of this program.

They are pickled by cloudpickle, which also takes functions that are defined in the main script or in other functions.
Only this program's own processes read what is written here, through a pipe that nothing else can open.
"""

import hashlib
import io
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

import cloudpickle
import torch
from torch import Tensor

from worldmodels.core.read_only import ReadOnly
from worldmodels.execution.chunk_unpacking import Sent


class Packed(NamedTuple):
    """A pickled object: what pickle wrote, and the memory of its arrays, which is not copied until it is sent."""

    data: bytes
    buffers: list[pickle.PickleBuffer]

    def digest(self) -> str:
        """A digest of all of it."""
        total = hashlib.blake2b(self.data, digest_size=16)
        for buffer in self.buffers:
            total.update(buffer.raw())
        return total.hexdigest()

    def to_send(self) -> Sent:
        """The same, copied."""
        return self.data, [bytearray(buffer.raw()) for buffer in self.buffers]


class Packer:
    """Pickles chunks; objects of :class:`ReadOnly` become references to parts, which are pickled once.

    parts: the pickled objects by digest; use one packer only as long as the objects are alive and unchanged.
    """

    def __init__(self) -> None:
        self.parts: dict[str, Packed] = {}
        self._digests: dict[int, tuple[str, ReadOnly]] = {}

    def pack(self, content: Any) -> Packed:
        """The pickled content."""
        file = io.BytesIO()
        buffers: list[pickle.PickleBuffer] = []
        _Pickler(file, self, content, buffers.append).dump(content)
        return Packed(file.getvalue(), buffers)

    def digest(self, part: ReadOnly) -> str:
        """The reference to an object, which is added to the parts."""
        if id(part) not in self._digests:
            packed = self.pack(part)
            digest = packed.digest()
            self.parts[digest] = packed
            self._digests[id(part)] = digest, part
        return self._digests[id(part)][0]


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    def __init__(
        self, file: io.BytesIO, packer: Packer, content: Any, keep: Callable[[pickle.PickleBuffer], None]
    ) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL, buffer_callback=keep)
        self._packer, self._content = packer, content

    def persistent_id(self, obj: Any) -> str | None:
        if isinstance(obj, ReadOnly) and obj is not self._content:
            return self._packer.digest(obj)
        return None

    def reducer_override(self, obj: Any) -> Any:
        # PyTorch's own way copies a tensor several times, which took a tenth of a short generation.
        if type(obj) is Tensor and _is_plain(obj):
            content = obj.as_strided((obj.numel(),), (1,)).view(torch.uint8).numpy().data
            return _tensor, (pickle.PickleBuffer(content), obj.dtype, obj.shape, obj.stride())
        return super().reducer_override(obj)


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor lies in a single piece of the main memory, and is nothing but its numbers."""
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.requires_grad or tensor.numel() == 0:
        return False
    if tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        return False
    channels_last = tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return channels_last or tensor.is_contiguous() or (tensor.ndim == 2 and tensor.t().is_contiguous())


def _tensor(buffer: bytearray, dtype: torch.dtype, shape: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """The tensor, in memory of its own: that of a buffer may start at any address, where products are slower."""
    return torch.frombuffer(buffer, dtype=dtype).clone().as_strided(shape, stride)
