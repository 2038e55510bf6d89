"""What makes dreams fast: random numbers computed on the device, batches of candidates, CUDA graphs."""
