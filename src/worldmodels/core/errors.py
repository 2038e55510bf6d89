"""Exceptions whose messages are shown to the user."""


class UserError(Exception):
    """An error that the user can fix. Its message, one line, says what was expected, what was given and what to do.

    The command line prints the message without a traceback.
    """


class UsageError(UserError):
    """A command line that cannot be parsed; the exit status is 2."""
