"""Failures meant for a person."""


class TroubleError(Exception):
    """Something a person can put right; its text is whole sentences that say what to do.

    Commands print the text and exit with code 1, without a traceback.
    """
