"""The size of the pieces in which frames are stored and read."""

FRAME_CHUNK = 64
"""Frames that are compressed together: few enough to read small parts, enough for zstd to exploit that frames are
similar. Training V reads whole chunks."""
