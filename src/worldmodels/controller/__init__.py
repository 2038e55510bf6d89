"""C, the controller: a linear map, its inputs, and the strategies that evolve it."""
