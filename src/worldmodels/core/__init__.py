"""Foundations of all other packages: errors, seeds, atomic files, settings, progress, metrics and the training loop."""
