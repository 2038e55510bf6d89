"""Pictures and films of an agent at work."""
