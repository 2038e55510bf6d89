"""Playing and watching: viewers without a window, and the window that shows them."""
