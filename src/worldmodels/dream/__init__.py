"""Dreams: M as an environment, with the same interface as a real one."""
