"""Playing and watching: viewers, which have no window of their own, and the window that shows them."""
