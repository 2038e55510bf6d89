"""The exceptions that are meant for people."""


class UserError(Exception):
    """One line: what was expected, what came and what to do. The command line prints it without a traceback."""


class UsageError(UserError):
    """A command line that cannot be understood; the exit status is 2."""
