"""Bin packing as pictures of 64x64 pixels: the published encoding, and one in which the bins can be counted.

The module docstring of task.py says what "published" refers to.

Legend: N instances, B levels (the capacity).
"""

import numpy as np

_SIDE = 64
ENCODINGS = ("published", "counted")
"""published: a level's number of bins is the length and the colour of a bar; counted: every bin of a bar is visible."""

# ColorBrewer's Blues; the published palette samples 30 colours between the two ends.
_BLUES = np.array(
    [
        (247, 251, 255), (222, 235, 247), (198, 219, 239), (158, 202, 225), (107, 174, 214),
        (66, 146, 198), (33, 113, 181), (8, 81, 156), (8, 48, 107),
    ]
)  # fmt: skip
_WHOLE, _REST = 29, 15
"""While 29 or more bins are left to draw, a block of the last colour is drawn, which stands for 15 of them."""
_ITEM_WIDTH = 6
"""Columns of the item in the published picture; an item of size s starts at column 6 s."""
_WIDTHS = (14, 6, 3)
"""Columns of the first three bins of a level, gap included; every further bin has one column. The first bins are wide
because good packers have at most one bin of most levels, and V encodes best what covers many pixels."""
_ITEM_COLUMNS, _MARGIN = 7, 1
"""Columns of the item at the right edge, and of the gap before it."""
_FITS, _DOES_NOT, _FRAME = (80, 200, 120), (70, 90, 140), (235, 235, 235)


def palette() -> np.ndarray:
    """The published palette of 30 blues, (30, 3) uint8, darkest first."""
    at = (1 - (np.arange(30) + 1) / 31) * 8
    channels = [np.interp(at, np.arange(9), _BLUES[:, channel] / 255) for channel in range(3)]
    return (np.stack(channels, axis=1) * 255).astype(np.uint8)


class PublishedPicture:
    """The published picture, for capacity 30 and items of size 1 to 9; ``most``: the most bins of a level."""

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
        # Level h is drawn in rows 59-2h and 60-2h, level 29 in row 0 as well; rows 60 to 63 show the item.
        bars = self._bars[counts[:, :0:-1]]
        pictures[:, 1:59:2] = bars
        pictures[:, 2:60:2] = bars
        pictures[:, 0] = bars[:, 0]
        pictures[:, 60:] = self._items[items][:, None]
        return pictures


class CountedPicture:
    """A picture from which the state can be read: a bar per level, in another colour if there is room for the item.

    A bar shows up to 36 bins. The item is a block at the right edge; the larger it is, the higher the block.
    capacity: B; most: the most bins of a level; largest: the largest item.
    """

    def __init__(self, capacity: int, most: int, largest: int) -> None:
        self._capacity = capacity
        ends = np.cumsum(_WIDTHS)
        bars = np.zeros((2, most + 1, _SIDE, 3), np.uint8)
        for fits, colour in enumerate((_DOES_NOT, _FITS)):
            for count in range(1, most + 1):
                further = int(ends[-1]) + max(0, count - len(ends))
                bars[fits, count, : further if count > len(ends) else ends[count - 1]] = colour
                # A black column after each of the first bins separates it from the next one.
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
    """The picture called ``encoding``, for at most ``most`` bins of a level and items of at most ``largest``."""
    return PublishedPicture(most) if encoding == "published" else CountedPicture(capacity, most, largest)


def _level_of_rows(capacity: int) -> np.ndarray:
    """The level that each row of the picture shows, (64,), the fullest at the top; level 0 is never shown."""
    shown = capacity - 1
    return np.asarray(shown - np.arange(_SIDE) * shown // _SIDE)


def fitting_levels(pictures: np.ndarray, capacity: int, encoding: str = "counted") -> np.ndarray:
    """The levels (N, B) bool that have room for the item, read off pictures (N, 64, 64, 3) of that encoding.

    Level 0, a new bin, always has.
    """
    if encoding == "published":
        fits = _fitting_published(pictures, capacity)
    else:
        rows = np.searchsorted(-_level_of_rows(capacity), -np.arange(1, capacity))
        fits = (pictures[:, rows, 0] == _FITS).all(axis=-1)
    return np.concatenate([np.ones((len(pictures), 1), bool), fits], axis=1)


def _fitting_published(pictures: np.ndarray, capacity: int) -> np.ndarray:
    """A level has open bins if its bar has a first pixel; the item's size follows from its column."""
    levels = np.arange(1, capacity)
    is_open = pictures[:, 59 - 2 * levels, 0].any(axis=-1)
    items = pictures[:, _SIDE - 1].any(axis=-1).argmax(axis=1) // _ITEM_WIDTH
    return np.asarray(is_open & (levels + items[:, None] <= capacity))
