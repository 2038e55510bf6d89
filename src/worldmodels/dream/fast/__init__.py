"""What makes dreams fast: random numbers computed on the device, and CUDA graphs."""
