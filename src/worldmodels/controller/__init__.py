"""C, the controller: one linear map, what it sees, and the strategies that evolve it."""
