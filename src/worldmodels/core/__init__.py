"""What every room stands on: errors, seeds, files that are whole or absent, progress, and the one training loop."""
