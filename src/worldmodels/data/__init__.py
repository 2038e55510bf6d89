"""Recorded episodes and the latents made of them: collected, stored, encoded, exchanged."""
