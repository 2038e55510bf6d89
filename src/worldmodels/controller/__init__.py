"""C, the controller: a linear map or a small network, its inputs, and the strategies that evolve it."""
