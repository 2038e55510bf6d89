"""M, the memory: the MDN-RNN, mixture density maths and its training."""
