"""Doom TakeCover: live as long as you can under fireballs."""
