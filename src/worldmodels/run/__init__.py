"""Runs: the settings of an experiment, its stages, its folder."""
