"""How long notebooks take and how much memory: measured as they run, kept in their stamps, and said of the whole.

Minutes that are left come from the seconds of the last run of the same kind on this machine; where there is none, from
those of the repository, figures/laptop/pace.json, which `make pace` writes of a whole run, and are said to be another
machine's; where there are none of the profile, from nowhere, and are not said. As notebooks end, what is left is scaled
by how long they took here.
"""

import contextlib
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from distill_lib.paths import COMMITTED, ROOT, runs_folder
from distill_lib.run.jobs import name_of
from distill_lib.run.lanes import MEMORY, Lanes
from distill_lib.run.stale import read_stamp, stamp_path

COMMITTED_PACE = ROOT / "figures" / COMMITTED / "pace.json"
_MINUTE = 60.0


class Peak:
    """The most memory that the processes below this one held together, in bytes, by a look now and then.

    Of a single process that has ended the system itself knows the most.
    """

    def __init__(self) -> None:
        self._seen = 0

    def look(self) -> None:
        """Add up what they hold now."""
        held = 0
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                held += process.memory_info().rss
        self._seen = max(self._seen, held)

    @property
    def bytes(self) -> int:
        """The most so far."""
        unit = 1 if sys.platform == "darwin" else 1024
        return max(self._seen, unit * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)


def whole_path(place: str) -> Path:
    """Where a run that drew all notebooks leaves how long it took."""
    return runs_folder() / "notebooks" / place / "pace.json"


def expected(outs: Mapping[str, Path], profile: str) -> dict[str, float]:
    """Seconds of notebooks as measured last, here or by the repository; without those that nobody has measured."""
    kept: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        notebooks = json.loads(COMMITTED_PACE.read_text())[profile]["notebooks"]
        kept = {label: float(notebooks[name_of(label)]["seconds"]) for label in outs if name_of(label) in notebooks}
    return kept | {name: read_stamp(out)["seconds"] for name, out in outs.items() if "seconds" in read_stamp(out)}


class Progress:
    """Says after each notebook, and each minute, how many are done and how many minutes are left, about.

    Args:
        outs: the executed notebooks of the run, in the order in which they begin.
        seconds: that they are expected to take, as `expected`.
        lanes: how many run at once.
    """

    def __init__(self, outs: dict[str, Path], seconds: dict[str, float], lanes: Lanes) -> None:
        self.outs, self.seconds, self.lanes = outs, seconds, lanes
        self._before = {name: _written_at(out) for name, out in outs.items()}
        self.start = self._printed = time.monotonic()
        self._begun: dict[str, float] = {}
        self.done: list[str] = []
        several = f", {lanes.count} at a time" if lanes.count > 1 else ""
        left = self._left(self.start)
        print(f"{_count(len(outs), 'notebook')}{several}, {_count(lanes.threads, 'thread')} each{left}", flush=True)

    def look(self) -> None:
        """Say how it stands if a notebook has ended, or a minute has passed."""
        now = time.monotonic()
        done = [name for name, out in self.outs.items() if _written_at(out) != self._before[name]]
        if len(done) > len(self.done) or now - self._printed >= _MINUTE:
            self.done, self._printed = done, now
            print(f"{len(done)} of {_count(len(self.outs), 'notebook')} done{self._left(now)}", flush=True)

    def _running(self, now: float) -> dict[str, float]:
        """Seconds that each running notebook has run: the first ones that are not done, as many as there are lanes."""
        names = [name for name in self.outs if name not in self.done][: self.lanes.count]
        return {name: now - self._begun.setdefault(name, now) for name in names}

    def left(self, now: float) -> float | None:
        """Seconds until all are done, about; None where it is not known of all that are left."""
        running = self._running(now)
        waiting = [name for name in self.outs if name not in {*self.done, *running}]
        if not {*running, *waiting} <= self.seconds.keys():
            return None
        took = {name: read_stamp(self.outs[name]).get("seconds", 0.0) for name in self.done if name in self.seconds}
        before = sum(self.seconds[name] for name in took)
        scale = sum(took.values()) / before if before else 1.0
        rest = [max(0.0, scale * self.seconds[name] - spent) for name, spent in running.items()]
        rest += [scale * self.seconds[name] for name in waiting]
        return max(sum(rest) / self.lanes.count, max(rest, default=0.0))

    def _left(self, now: float) -> str:
        left = self.left(now)
        if left is None:
            return "; how long the others take has not been measured"
        if len(self.done) == len(self.outs):
            return ""
        # after its first run here each notebook has a stamp, and the first that ends in this run scales the others
        measured = any("seconds" in read_stamp(out) for out in self.outs.values())
        minutes = _count(max(1, round(left / 60)), "minute")
        return f", about {minutes} left{'' if measured else ' by the pace of another machine'}"


def _written_at(out: Path) -> int:
    with contextlib.suppress(OSError):
        return stamp_path(out).stat().st_mtime_ns
    return 0


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def summary(outs: Mapping[str, Path]) -> str:
    """How much memory notebooks took at the most, and which of them took more than `lanes.MEMORY`; empty if unknown."""
    held = {name: int(read_stamp(out).get("memory", 0)) for name, out in outs.items()}
    if not any(held.values()):
        return ""
    above = [name for name, size in held.items() if size > MEMORY]
    most = max(held, key=held.__getitem__)
    above_limit = f"; above {MEMORY / 2**30:g} GB: {', '.join(above)}" if above else f", below {MEMORY / 2**30:g} GB"
    return f"memory: at most {held[most] / 2**30:.1f} GB a notebook ({most}){above_limit}"


def keep_whole(place: str, progress: Progress) -> None:
    """Leave how long the run of all notebooks took, in all and each."""
    spent = {key: read_stamp(out) for key, out in progress.outs.items()}
    notebooks = {name: {key: of[key] for key in ("seconds", "memory") if key in of} for name, of in spent.items()}
    lanes = progress.lanes
    record = {"day": time.strftime("%Y-%m-%d"), "seconds": round(time.monotonic() - progress.start)}
    record |= {"at_once": lanes.count, "threads": lanes.threads, "cores": os.cpu_count(), "machine": platform.machine()}
    record |= {"notebooks": dict(sorted(notebooks.items()))}
    _write(whole_path(place), record)


def _write(path: Path, record: dict[str, Any]) -> None:
    from distill_lib.engine.files import atomic  # loads torch, which a run that drew anything has loaded by now

    with atomic(path) as part:
        part.write_text(json.dumps(record, indent=1))


def publish_pace(profile: str) -> None:
    """Put how long a whole run of a profile took here into figures/laptop/pace.json, where others find it.

    Raises:
        ValueError: the last run of this profile did not draw all notebooks.
    """
    path = whole_path(profile)
    if not path.exists():
        raise ValueError(
            f"no run of PROFILE={profile} drew all notebooks in one go; remove {path.parent} and `make figures` again"
        )
    known: dict[str, Any] = json.loads(COMMITTED_PACE.read_text()) if COMMITTED_PACE.exists() else {}
    _write(COMMITTED_PACE, dict(sorted((known | {profile: json.loads(path.read_text())}).items())))
    print(f"{COMMITTED_PACE.relative_to(ROOT)}: {profile}")
