"""Bin packing as pictures of 64x64 pixels: the published encoding, and one from which every count can be read.

Legend: N instances, B levels (the capacity).
"""

import numpy as np

_SIDE = 64
ENCODINGS = ("published", "counted")
"""published: bars whose hue is a remainder, as the published project draws them; counted: bars that can be counted."""

# ColorBrewer's Blues, of which the published palette has 30 samples between its ends.
_BLUES = np.array(
    [
        (247, 251, 255), (222, 235, 247), (198, 219, 239), (158, 202, 225), (107, 174, 214),
        (66, 146, 198), (33, 113, 181), (8, 81, 156), (8, 48, 107),
    ]
)  # fmt: skip
_WHOLE, _REST = 29, 15
"""A chunk of the last colour is drawn for 29 or more bins, and stands for 15 of them."""
_ITEM_WIDTH = 6
"""Columns of the item in the published picture; it stands as many times as far to the right as it is large."""
_WIDTHS = (14, 6, 3)
"""Columns of the first bins of a level, gap included; every further one has a single column. Whoever packs well has
none or one of most levels, and V keeps what covers many pixels."""
_ITEM_COLUMNS, _MARGIN = 7, 1
"""Columns of the item at the right edge, and of the gap before it."""
_FITS, _DOES_NOT, _FRAME = (80, 200, 120), (70, 90, 140), (235, 235, 235)


def palette() -> np.ndarray:
    """The published 30 blues, (30, 3) uint8, darkest first."""
    at = (1 - (np.arange(30) + 1) / 31) * 8
    channels = [np.interp(at, np.arange(9), _BLUES[:, channel] / 255) for channel in range(3)]
    return (np.stack(channels, axis=1) * 255).astype(np.uint8)


class PublishedPicture:
    """The picture of the published project, for capacity 30 and items of 1 to 9."""

    def __init__(self, most: int) -> None:
        blues = palette()
        self._bars = np.zeros((most + 1, _SIDE, 3), np.uint8)
        for count in range(1, most + 1):
            left, column = count, 0
            while left >= _WHOLE and column < _SIDE:
                self._bars[count, column : column + 2] = blues[_WHOLE]
                left, column = left - _REST, column + 2
            if left > 0:
                self._bars[count, column : column + 2] = blues[min(left, _WHOLE)]
        self._items = np.zeros((10, _SIDE, 3), np.uint8)
        for size in range(1, 10):
            self._items[size, _ITEM_WIDTH * size : _ITEM_WIDTH * (size + 1)] = blues[size]

    def __call__(self, counts: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Pictures (N, 64, 64, 3) uint8 of counts (N, 30) and items (N,)."""
        pictures = np.zeros((len(counts), _SIDE, _SIDE, 3), np.uint8)
        # Level h has rows 59-2h and 60-2h; row 60 belongs to the item, and level 29 has row 0 as well.
        bars = self._bars[counts[:, :0:-1]]
        pictures[:, 1:59:2] = bars
        pictures[:, 2:60:2] = bars
        pictures[:, 0] = bars[:, 0]
        pictures[:, 60:] = self._items[items][:, None]
        return pictures


class CountedPicture:
    """A picture from which the state can be read: a bar per level, in another colour where the item fits.

    Bars show up to 36 bins. The item is a block at the right edge, the higher the larger it is.
    """

    def __init__(self, capacity: int, most: int, largest: int) -> None:
        self._capacity = capacity
        ends = np.cumsum(_WIDTHS)
        bars = np.zeros((2, most + 1, _SIDE, 3), np.uint8)
        for fits, colour in enumerate((_DOES_NOT, _FITS)):
            for count in range(1, most + 1):
                further = int(ends[-1]) + max(0, count - len(ends))
                bars[fits, count, : further if count > len(ends) else ends[count - 1]] = colour
                # The gap after each bin lets them be counted.
                bars[fits, count, ends[:count] - 1] = 0
        self._bars = bars.reshape(2 * (most + 1), _SIDE * 3)
        self._most = most
        self._level = _level_of_rows(capacity)
        self._item = np.zeros((largest + 1, _SIDE, _ITEM_COLUMNS + _MARGIN, 3), np.uint8)
        for size in range(1, largest + 1):
            top, bottom = (_SIDE * place // largest for place in (largest - size, largest - size + 1))
            self._item[size, top:bottom, _MARGIN:] = _FRAME

    def __call__(self, counts: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Pictures (N, 64, 64, 3) uint8 of counts (N, B) and items (N,)."""
        fits = (np.arange(self._capacity) + items[:, None]) <= self._capacity
        index = (counts + (self._most + 1) * fits)[:, self._level]
        pictures: np.ndarray = self._bars.take(index, axis=0, mode="clip").reshape(len(counts), _SIDE, _SIDE, 3)
        pictures[:, :, _SIDE - _ITEM_COLUMNS - _MARGIN :] = self._item[items]
        return pictures


def picture_of(encoding: str, capacity: int, most: int, largest: int) -> PublishedPicture | CountedPicture:
    """The picture called ``encoding``; most: bins of a level, largest: item that it must be able to show."""
    return PublishedPicture(most) if encoding == "published" else CountedPicture(capacity, most, largest)


def _level_of_rows(capacity: int) -> np.ndarray:
    """The level that each row of the picture shows, (64,), the fullest at the top; level 0 is never shown."""
    shown = capacity - 1
    return np.asarray(shown - np.arange(_SIDE) * shown // _SIDE)


def fitting_levels(pictures: np.ndarray, capacity: int, encoding: str = "counted") -> np.ndarray:
    """Levels (N, B) bool that take the item, read off pictures of that encoding; a new bin (0) always does."""
    if encoding == "published":
        fits = _fitting_published(pictures, capacity)
    else:
        rows = np.searchsorted(-_level_of_rows(capacity), -np.arange(1, capacity))
        fits = (pictures[:, rows, 0] == _FITS).all(axis=-1)
    return np.concatenate([np.ones((len(pictures), 1), bool), fits], axis=1)


def _fitting_published(pictures: np.ndarray, capacity: int) -> np.ndarray:
    """A level is open where its bar begins, and the item is as large as it stands far to the right."""
    levels = np.arange(1, capacity)
    is_open = pictures[:, 59 - 2 * levels, 0].any(axis=-1)
    items = pictures[:, _SIDE - 1].any(axis=-1).argmax(axis=1) // _ITEM_WIDTH
    return np.asarray(is_open & (levels + items[:, None] <= capacity))
