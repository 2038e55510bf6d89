"""V, the vision model: turns frames into latents and back."""
