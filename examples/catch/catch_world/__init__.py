"""A world of your own: catch falling balls. ``task.py`` is what worldmodels knows of it."""
