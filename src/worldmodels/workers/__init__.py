"""Where environments run: in this process or in worker processes."""
