"""The dream: M as a world of its own, with the interface of any other."""
