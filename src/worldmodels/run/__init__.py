"""Runs: the settings, the stages and the directory of an experiment."""
