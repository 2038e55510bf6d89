"""Finding and reading the files of weights that Ha and Schmidhuber published with "World Models" (2018).

They hold whole numbers, each 10,000 times a weight, in nested JSON lists; files of their web page hold the same numbers
as 16-bit integers in base64. The files are data of strangers: sizes, shapes and numbers are checked before use.
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from worldmodels.core.errors import UserError
from worldmodels.core.files import read_json

SCALE = 10_000.0
"""What weights were multiplied by before they were rounded."""
_WEB_SCALES = {"doomrnn.min.js": 1_500.0}
"""The same for the files of the web page that have a scale of their own."""
_LARGEST = 1e8
"""Largest number in a file, which stands for a weight of 10,000."""
_LARGEST_SCRIPT = 64 << 20
_PLACES = {
    "vae": ("vae.json", "vae/vae.json", "tf_vae/vae.json"),
    "rnn": ("rnn.json", "rnn/rnn.json", "tf_rnn/rnn.json", "carrnn.min.js", "doomrnn.min.js"),
    "initial_z": ("initial_z.json", "initial_z/initial_z.json", "tf_initial_z/initial_z.json"),
}
_NOT_CONTROLLERS = ("vae.json", "rnn.json", "initial_z.json", ".hist.json", ".hist_best.json", ".log.json")
_ANOTHER = "get the file again, or give another folder"


@dataclass(frozen=True)
class PublishedFiles:
    """The files of a folder, None where there is none: of V, of M and of its start states."""

    vae: Path
    rnn: Path | None
    initial_z: Path | None


def find_files(folder: Path) -> PublishedFiles:
    """The files in a folder, also where the authors' repository has them; UserError without a V."""
    if not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder; expected one with vae.json, rnn.json, initial_z.json and X.best.json"
        )
    found = {
        name: next((folder / place for place in places if (folder / place).is_file()), None)
        for name, places in _PLACES.items()
    }
    if found["vae"] is None:
        raise UserError(f"no vae.json in {folder}; expected the folder with the published weights, V's among them")
    return PublishedFiles(found["vae"], found["rnn"], found["initial_z"])


def find_controller(folder: Path) -> Path | None:
    """The file of C in such a folder, None without one; a UserError if there are several."""
    files = [path for place in (folder, folder / "log") for path in sorted(place.glob("*.json")) if path.is_file()]
    files = [path for path in files if not path.name.endswith(_NOT_CONTROLLERS)]
    files = [path for path in files if path.name.endswith(".best.json")] or files
    if len(files) > 1:
        named = ", ".join(str(path.relative_to(folder)) for path in files[:4])
        raise UserError(f"several files in {folder} may hold C ({named}); name one with --controller")
    return files[0] if files else None


def read_weights(path: Path, shapes: Sequence[tuple[int, ...] | None]) -> list[np.ndarray]:
    """The arrays of a file, float64, scaled back to weights. None stands for a shape that is not known yet.

    Raises :class:`UserError` for another number of arrays, other shapes, or what are no moderate numbers.
    """
    if path.suffix == ".js":
        return _script_arrays(path, shapes)
    content = read_list(path)
    if len(content) != len(shapes):
        reason = "it is empty, as files of a known fault of the authors' code are" if not content else "others follow"
        raise UserError(f"{path} holds {len(content)} arrays, expected {len(shapes)} ({reason}); {_ANOTHER}")
    arrays = []
    for index, (value, shape) in enumerate(zip(content, shapes, strict=True)):
        array = numbers(path, value, f"array {index}") / SCALE
        if shape is not None and array.shape != shape:
            raise UserError(f"array {index} of {path} has the shape {array.shape}, expected {shape}; {_ANOTHER}")
        arrays.append(array)
    return arrays


def read_list(path: Path) -> list[Any]:
    """The list that a JSON file holds; :class:`UserError` for anything else."""
    content = read_json(path, repair=_ANOTHER)
    if not isinstance(content, list):
        raise UserError(f"{path} holds no list of arrays; {_ANOTHER}")
    return content


def numbers(path: Path, value: Any, what: str) -> np.ndarray:
    """A nested list as an array, float64; :class:`UserError` for other things than moderate, finite numbers."""
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError, RecursionError):  # lists of different lengths, huge numbers, deep nesting
        raise UserError(f"{what} of {path} is no array of numbers; {_ANOTHER}") from None
    if array.dtype.kind not in "iuf" or not array.size:
        raise UserError(f"{what} of {path} is no array of moderate numbers; {_ANOTHER}")
    array = array.astype(np.float64)
    if not (np.abs(array) <= _LARGEST).all():  # NaN fails, too
        worst = array.reshape(-1)[np.abs(np.nan_to_num(array, nan=np.inf)).argmax()]
        raise UserError(f"{what} of {path} holds {worst:g}, which is no weight but an overflow; {_ANOTHER}")
    return array


def _script_arrays(path: Path, shapes: Sequence[tuple[int, ...] | None]) -> list[np.ndarray]:
    """The arrays of a file of the authors' web page: a script with texts in base64, little-endian 16-bit integers."""
    if path.stat().st_size > _LARGEST_SCRIPT:
        raise UserError(f"{path} is too large for a script with weights; {_ANOTHER}")
    texts = re.findall(r"[\"']([A-Za-z0-9+/]{2,}={0,2})[\"']", path.read_text(errors="replace"))
    if len(texts) != len(shapes):
        raise UserError(f"{path} holds {len(texts)} arrays in base64, expected {len(shapes)}; {_ANOTHER}")
    arrays = []
    for index, (text, shape) in enumerate(zip(texts, shapes, strict=True)):
        try:
            flat = np.frombuffer(base64.b64decode(text, validate=True), "<i2")
            array = flat.reshape(-1 if shape is None else shape)
        except ValueError:
            raise UserError(f"array {index} of {path} has not the shape {shape}; {_ANOTHER}") from None
        arrays.append(array / _WEB_SCALES.get(path.name, SCALE))
    return arrays
