"""One exception for everything the package refuses, so that a caller can catch it and the command line can print it."""
import contextlib


class StanhlicError(ValueError):
    """A refusal with one line that says what is wrong and what to do."""


@contextlib.contextmanager
def needs(
    extra: str,  # of this package
):
    """Imports inside may be missing: raises `StanhlicError` that names the module and the extra which brings it."""
    try: yield
    except ModuleNotFoundError as e:
        if (name := (e.name or "").split(".")[0]) == "stanhlic": raise
        raise StanhlicError(f'{name} is not installed; pip install "stanhlic[{extra}]"') from None
