"""Output in encodings that lack some characters: a log file on Windows is cp1252, without ε."""

import codecs
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from unicodedata import name, normalize

__all__ = ["printable"]

HANDLER = "nexus.spelled"
GREEK = "GREEK SMALL LETTER "
SIGNS = {
    "λ": "lambda",  # Unicode spells it lamda
    "±": "+-",
    "×": "x",
    "·": "*",
    "−": "-",
    "–": "-",
    "←": "<-",
    "→": "->",
    "≤": "<=",
    "≥": ">=",
    "∞": "inf",
    "√": "root ",
    "’": "'",
}


@contextmanager
def printable() -> Iterator[None]:
    """Make stdout and stderr spell out characters that their encodings lack, instead of raising during a run."""
    outputs = [output for output in (sys.stdout, sys.stderr) if isinstance(output, TextIOWrapper)]
    before = [output.errors for output in outputs]
    for output in outputs:
        output.reconfigure(errors=HANDLER)
    try:
        yield
    finally:
        for output, errors in zip(outputs, before, strict=True):
            if not output.closed:
                output.reconfigure(errors=errors)


def spelled(error: UnicodeError) -> tuple[str, int]:
    """Return the replacement of characters that can't be encoded; an error handler for codecs."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(spell, error.object[error.start : error.end])), error.end


def spell(character: str) -> str:
    """Return a character in ASCII: Greek letters by name, signs by similar signs, others without accents."""
    if character in SIGNS:
        return SIGNS[character]
    called = name(character, "")
    if called.startswith(GREEK):
        return called.removeprefix(GREEK).lower()
    return normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


codecs.register_error(HANDLER, spelled)
