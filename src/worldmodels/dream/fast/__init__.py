"""Parts that make dreams fast: random numbers that are computed on the device, and CUDA graphs."""
