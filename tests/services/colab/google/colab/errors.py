"""Errors of this package."""


class Error(Exception):
    """Base of the errors, but not of all of them: see userdata."""
