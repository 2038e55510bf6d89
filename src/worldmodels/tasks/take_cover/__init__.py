"""Doom TakeCover: dodge fireballs and survive for as long as possible."""
