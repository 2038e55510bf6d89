"""The one exception that is meant for people."""


class UserError(Exception):
    """One line: what was expected, what came and what to do. The command line prints it without a traceback."""
