"""What the package refuses, as exceptions that a caller can catch and the command line can print. Each message says what is wrong and what to do."""
import contextlib
import numbers
import re
from collections.abc import Iterator


def printable(
    text: str,   # anything, perhaps from a stranger's file
) -> str:
    """The text with every character that a terminal would obey or cannot show written as its escape; line breaks stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


class StanhlicError(ValueError):
    """A refusal with one line that says what is wrong and what to do; names from files are in it as `printable` shows them."""

    def __str__(self) -> str: return printable(super().__str__())


class DamagedFile(StanhlicError):
    """The bytes are not what stanhlic wrote: changed, joined to others, forged, or never a file of ours."""


class CutFile(DamagedFile):
    """The file ends too early; the missing bytes would complete it."""


class WrongModel(StanhlicError):
    """The file, or the analyzed picture, belongs to a model other than the one in use, or to none known here."""


class KeysDoNotFit(StanhlicError):
    """The tensors of a checkpoint are not those of a network; the message has the first of each kind of difference, `lines` all of them."""

    def __init__(self, message: str, lines: list):
        super().__init__(message)
        self.lines = lines


class OutOfReach(StanhlicError):
    """No file of this model meets the target for this picture; the message says what is within reach."""


class NotEnoughMemory(StanhlicError):
    """The picture needs more memory than is free, or than the caller allows."""


class CutFileWarning(UserWarning):
    """A file ends before its last layer; the complete layers were decoded."""


def check_layers(
    layers,              # asked for; None: all
    there: int,          # how many exist
    what: str = "model", # what has them
) -> int:
    """Number of layers; raises `StanhlicError` for anything but a whole number, and for more than there are."""
    if layers is None: return there
    if isinstance(layers, bool) or not isinstance(layers, numbers.Integral): raise StanhlicError(f"{str(layers)[:40]} is not a number of layers; give a whole number from 1 to {there}")
    if not 1 <= layers <= there: raise StanhlicError(f"{layers} layers asked for, the {what} has {there}; choose 1 to {there}")
    return int(layers)


@contextlib.contextmanager
def needs(
    extra: str,  # of this package
) -> Iterator[None]:
    """Imports inside may be missing: raises a `StanhlicError` that names the module and the extra that brings it."""
    try: yield
    except ModuleNotFoundError as e:
        if (name := (e.name or "").split(".")[0]) == "stanhlic": raise
        raise StanhlicError(f'{name} is not installed; pip install "stanhlic[{extra}]"') from None


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Want of memory inside, as Python and as torch report it, is a `NotEnoughMemory`."""
    try: yield
    except (MemoryError, RuntimeError) as e:  # torch reports it as a RuntimeError
        if isinstance(e, RuntimeError) and not re.search("out of memory|allocate memory", str(e)): raise
        raise NotEnoughMemory("memory ran out at this picture or batch; split it into smaller ones, or use device cpu on a machine with more") from e
