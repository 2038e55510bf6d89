"""Evolving C: phases, the loop of a phase, the search space, and fitness in the real world and in dreams."""
