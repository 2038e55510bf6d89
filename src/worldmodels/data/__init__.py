"""Recorded episodes and their latents: collecting, storing, encoding and exchanging them."""
