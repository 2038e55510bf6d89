"""What chunks of work only read."""


class ReadOnly:
    """Marks classes whose objects chunks of work never change, such as agents.

    A worker process receives such an object once, however many chunks use it, and keeps it.
    """
