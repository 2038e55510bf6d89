"""Evolving C: phases, the loop that runs them, and where fitness comes from."""
