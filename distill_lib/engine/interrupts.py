"""SIGTERM and SIGINT while a training runs: the update that is running ends, its state is kept, and then it stops.

A scheduler ends a job by SIGTERM, a reader by Ctrl-C or the kernel's stop button. Neither loses an update. Outside a
training both do what they always do, and a second SIGINT does not wait.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_watching: list["Watch"] = []
_before: dict[int, object] = {}
_requests: list[int] = []
_process = 0


class Watch:
    """A block in which the two signals wait for `calm`, and `keep` is called before they take effect.

    Only the main thread can be signalled: in another the block changes nothing. A signal that is ignored stays so.

    Args:
        keep: keeps what is needed to go on, and says so; it is called with the name of the signal.
    """

    def __init__(self, keep: Callable[[str], None]) -> None:
        self.keep, self.busy = keep, False

    def __enter__(self) -> "Watch":
        global _process
        if threading.current_thread() is threading.main_thread():
            if not _watching:
                _process = os.getpid()
                for number in _SIGNALS:
                    if signal.getsignal(number) not in (signal.SIG_IGN, None):
                        _before[number] = signal.signal(number, _arrived)
            _watching.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.busy = False
        if self in _watching:
            _watching.remove(self)
            if not _watching:
                _restore()

    def begin(self) -> None:
        """Until `calm`, what `keep` would keep is in the making."""
        self.busy = True

    def calm(self) -> None:
        """What `keep` would keep is whole; a signal that came meanwhile takes effect.

        Raises:
            KeyboardInterrupt: SIGINT came.
            SystemExit: SIGTERM came; the code is 143, as a shell reports it.
        """
        self.busy = False
        if _requests:
            _stop()


def _arrived(number: int, _: FrameType | None) -> None:
    if os.getpid() != _process:  # a child that was forked on the way is none of ours
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        return
    again = number == signal.SIGINT and number in _requests
    _requests.append(number)
    if again:
        _requests.clear()
        raise KeyboardInterrupt
    if not any(watch.busy for watch in _watching):
        _stop()


def _stop() -> None:
    number = _requests[0]
    try:
        for watch in _watching:
            watch.busy = True
            watch.keep(signal.Signals(number).name)
    finally:
        _requests.clear()
        for watch in _watching:
            watch.busy = False
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def _restore() -> None:
    for number, handler in _before.items():
        if signal.getsignal(number) is _arrived:
            signal.signal(number, handler)
    _before.clear()
    left = signal.SIGTERM in _requests  # it came in a step that failed, which is as good an end for SIGINT
    _requests.clear()
    if left:
        signal.raise_signal(signal.SIGTERM)
