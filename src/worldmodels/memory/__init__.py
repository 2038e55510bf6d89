"""M, the memory: an LSTM with a mixture density output that predicts the next latent."""
