"""Frames as the code of 2018 made them (Ha & Schmidhuber, "World Models"), on which its published weights depend."""

import numpy as np
from PIL import Image


def published_frames(pictures: np.ndarray) -> np.ndarray:
    """Pictures (N, H, W, 3) uint8 as frames (N, 64, 64, 3) uint8, like the authors' code, to the bit.

    That code divided a picture by 255, resized it with ``scipy.misc.imresize`` and inverted the result, as it believed.
    But imresize stretches numbers that are no integers so that the lowest one becomes 0 and the highest 255, in each
    picture by itself, and returns integers. So the inversion ``(1 - v) * 255`` was one of v from 0 to 255, which wraps
    around: what remains is v - 1 modulo 256. Black becomes white, and every other value is lowered by one.
    """
    frames = np.empty((len(pictures), 64, 64, 3), np.uint8)
    for frame, picture in zip(frames, pictures, strict=True):
        stretched = _stretch_table(int(picture.min()), int(picture.max()))[picture]
        # Pillow's bilinear filter is antialiased when it makes pictures smaller; imresize used it.
        frame[:] = np.asarray(Image.fromarray(stretched).resize((64, 64), Image.Resampling.BILINEAR))
    return frames - np.uint8(1)  # modulo 256


def _stretch_table(low: int, high: int) -> np.ndarray:
    """What imresize makes of each of the values 0 to 255 in a picture with these extremes, (256,) uint8."""
    values = np.arange(256) / 255.0
    lowest, highest = low / 255.0, high / 255.0
    scale = 255.0 / (highest - lowest if highest > lowest else 1.0)
    table: np.ndarray = (((values - lowest) * scale).clip(0, 255) + 0.5).astype(np.uint8)
    return table
