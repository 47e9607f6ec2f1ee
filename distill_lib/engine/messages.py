"""How values and paths are shown in an error: on one line, and never long."""

from pathlib import Path

LONGEST = 60
"""Characters of a value that an error shows."""
_PATH = 120  # and of a path, whose end says most


def line(text: object, most: int = 4 * LONGEST) -> str:
    """A text on one line, cut after `most` characters; control characters are escaped."""
    text = " ".join(str(text)[: 4 * most].split())
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return text if len(text) <= most else text[: most - 2] + ".."


def short(value: object, most: int = LONGEST) -> str:
    """A value as Python writes it, on one line and cut as `line` does."""
    return line(repr(value[: 4 * most] if isinstance(value, str | bytes) else value), most)


def place(path: Path | str) -> str:
    """A path on one line, its start left out where it is long."""
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(path))
    return text if len(text) <= _PATH else ".." + text[2 - _PATH :]
