"""One exception for everything the package refuses, so that a caller can catch it and the command line can print it."""

class StanhlicError(ValueError):
    """A refusal with one line that says what is wrong and what to do."""
