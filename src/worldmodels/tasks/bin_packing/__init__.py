"""Online bin packing from pictures."""
