"""Output for streams that lack some characters: a log file on Windows is cp1252, and has no ε."""

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
    "λ": "lambda",  # which Unicode calls lamda
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
    """Let stdout and stderr spell what their encodings lack, in place of an error in the midst of a run."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, TextIOWrapper)]
    before = [stream.errors for stream in streams]
    for stream in streams:
        stream.reconfigure(errors=HANDLER)
    try:
        yield
    finally:
        for stream, errors in zip(streams, before, strict=True):
            if not stream.closed:
                stream.reconfigure(errors=errors)


def spelled(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for the characters that can't be encoded, as an error handler of codecs does."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(spell, error.object[error.start : error.end])), error.end


def spell(character: str) -> str:
    """Return a character in ASCII: Greek letters by their names, signs by their looks, others without an accent."""
    if character in SIGNS:
        return SIGNS[character]
    called = name(character, "")
    if called.startswith(GREEK):
        return called.removeprefix(GREEK).lower()
    return normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


codecs.register_error(HANDLER, spelled)
