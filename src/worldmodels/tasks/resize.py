"""Pictures of any size as frames."""

import numpy as np


def resized(pictures: np.ndarray) -> np.ndarray:
    """Pictures (N, H, W, 3) uint8, resized to frames (N, 64, 64, 3) uint8 with an antialiased bilinear filter."""
    import torch  # only here, so that a world can be tried without the seconds that this takes
    import torch.nn.functional as F

    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    small = F.interpolate(images, size=(64, 64), mode="bilinear", antialias=True)
    return np.ascontiguousarray(small.permute(0, 2, 3, 1).numpy())
