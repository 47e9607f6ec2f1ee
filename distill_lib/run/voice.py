"""What a run says of a notebook: whole lines, each with its number, and a line at least every 15 seconds."""

import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

QUIET_SECONDS = 15.0
_HEADING = re.compile(r"^#+ +(.+)", re.MULTILINE)
_COMMENT = re.compile(r"^\s*# (.+)", re.MULTILINE)
_WIDTH = 60


class Voice:
    """Passes on what cells print, and says which cell is running where nothing has been said for a while.

    Two notebooks may run at once: a line goes out whole, and begins with the number of its notebook. Of a line that
    renews itself (a bar of progress) the last state goes out.

    Args:
        name: of the notebook.
        cells: how many code cells it has.
        each_second: is called while the notebook runs.
    """

    def __init__(self, name: str, cells: int, each_second: Callable[[], None] = lambda: None) -> None:
        self.name, self.cells, self.number, self._title, self._heading = name, cells, 0, "", ""
        self._rest, self._each, self._lock = "", each_second, threading.RLock()
        self.last = self.begun = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def write(self, text: str) -> None:
        """Take what a cell prints; whole lines go out."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            self._send([line.rstrip("\r").rpartition("\r")[2] for line in lines])

    def flush(self) -> None:
        """Nothing: a line that has no end yet waits for it."""

    def say(self, message: str) -> None:
        """A line of our own."""
        self._send([message])

    def begins(self, cell: Any, **_: Any) -> None:
        """Called as a cell begins, Markdown included."""
        if cell.cell_type == "markdown":
            heading = _HEADING.search(cell.source)
            self._heading = heading[1] if heading else self._heading
        elif "injected-parameters" not in cell.metadata.get("tags", []):
            self.number, self.begun = self.number + 1, time.monotonic()
            comment = _COMMENT.search(cell.source)
            self._title = (comment[1] if comment else self._heading)[:_WIDTH]

    def look(self) -> None:
        """Say which cell is running, if nothing has been said for QUIET_SECONDS."""
        now = time.monotonic()
        if now - self.last >= QUIET_SECONDS:
            place = f"cell {self.number} of {self.cells} ({self._title})" if self.number else "before its first cell"
            self.say(f"{place}, {now - self.begun:.0f} s so far")

    def _send(self, lines: list[str]) -> None:
        with self._lock:
            if lines := [line for line in lines if line.strip()]:
                self.last = time.monotonic()
                # in one piece, so that no other notebook comes between
                sys.stdout.write("".join(f"{self.name[:2]} | {line}\n" for line in lines))
                sys.stdout.flush()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            self._each()
            self.look()

    def __enter__(self) -> "Voice":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self.write("\n" if self._rest else "")
