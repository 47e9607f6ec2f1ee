"""A campaign of kills: what is killed when, and what is held against an undisturbed run."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from distill_lib.paths import ROOT
from distill_lib.run.notebooks import artefacts_of
from distill_lib.run.stale import rows_of

NOTEBOOKS = ("00_start_here", "02_guidance_distillation", "03_step_halving")
KINDS = ("head alone", "whole tree", "SIGTERM")
_COPIED = ("distill_lib", "notebooks", "Snakefile", "requirements.lock", "pyproject.toml")
_CLOCK = ("second", "total", "sum", "share", "gain", "ratio", "pictures", "speedup")  # rows that time something
_LIMIT = 16 * 1024  # bytes that a file may have while the disk is "full"
_PATIENCE = 1800.0  # seconds for one call to end


@dataclass
class Campaign:
    """Kills of `figures` and `publish` for some notebooks, at smoke, in one folder; seed: of the random moments."""

    folder: Path
    notebooks: tuple[str, ...] = NOTEBOOKS
    seed: int = 0
    weights: dict[str, set[str]] = field(default_factory=dict)
    counts: Counter = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.checkout = self.folder / "check {out}"  # a place that needs care
        for name in _COPIED:
            source, target = ROOT / name, self.checkout / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copyfile(source, target)
        if not (self.checkout / "pretrained").exists():
            (self.checkout / "pretrained").symlink_to(ROOT / "pretrained")

    def command(self, place: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        """A command of the copy, and its environment; `place` tells disturbed and undisturbed runs apart."""
        environment = os.environ | {
            "DISTILL_RUNS": str(self.folder / place / "runs"),
            "DISTILL_FIGURES": str(self.folder / place / "figures"),
            "PYTHONPATH": str(self.checkout),
            "OMP_NUM_THREADS": "1",
            "PRECISION": "fp32",  # one for both, so that bits can be compared
        }
        environment.pop("DISTILL_PROFILE", None)
        return [sys.executable, "-m", "distill_lib.run", *arguments], environment

    def figures(self, notebook: str) -> tuple[str, ...]:
        """The arguments that draw one notebook."""
        return ("figures", "--profile", "smoke", "--id", artefacts_of(notebook)[0])

    def start(self, place: str, *arguments: str, limit: int = 0) -> subprocess.Popen[str]:
        """A running command, in a group of its own, whose files may not grow beyond `limit` bytes."""
        command, environment = self.command(place, *arguments)
        small = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))) if limit else None
        return subprocess.Popen(
            command, cwd=self.checkout, env=environment, start_new_session=True, text=True, preexec_fn=small,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )  # fmt: skip

    def to_the_end(self, place: str, *arguments: str, limit: int = 0) -> tuple[int, str]:
        """Exit status and stderr of a command that nobody kills."""
        running = self.start(place, *arguments, limit=limit)
        _, output = running.communicate(timeout=_PATIENCE)
        return running.returncode, output

    def undisturbed(self) -> None:
        """Draw everything once in peace, and keep which weights came from which notebook."""
        seen: set[str] = set()
        for notebook in self.notebooks:
            code, output = self.to_the_end("peace", *self.figures(notebook))
            if code:
                raise RuntimeError(f"{notebook} does not run even in peace: {output}")
            made = {path.parent.name for path in (self.folder / "peace" / "runs").glob("*/weights.safetensors")}
            self.weights[notebook], seen = made - seen, seen | made

    def kill_once(self, notebook: str, in_training: bool = False) -> bool:
        """One kill while a notebook is drawn; False if the run ended before it came."""
        running = self.start("chaos", *self.figures(notebook))
        self._wait_for_training(running) if in_training else self._wait_for_moment(running)
        kind = self.random.choice(KINDS)
        if running.poll() is not None:
            _, output = running.communicate()
            if running.returncode:
                self.complaints.append(f"{notebook} ended with {running.returncode}: {output[-300:]}")
            return False
        _kill(running, kind)
        running.wait(timeout=60)
        running.stderr and running.stderr.close()
        self.counts[kind] += 1
        return True

    def _wait_for_moment(self, running: subprocess.Popen[str]) -> None:
        """A random time, or the next moment in which a file is being written beside its place."""
        start, patience = time.monotonic(), self.random.uniform(0.5, 20.0)
        waiting_for_write = self.random.random() < 0.5
        while running.poll() is None and time.monotonic() - start < patience:
            if waiting_for_write and time.monotonic() - start > patience / 2 and self._being_written():
                self.counts["while a file was written"] += 1
                return
            time.sleep(0.005 if waiting_for_write else 0.05)

    def _wait_for_training(self, running: subprocess.Popen[str]) -> None:
        """Until a training has left a state to go on from."""
        while running.poll() is None:
            if any((self.folder / "chaos" / "runs").glob("*/state/*.safetensors")):
                self.counts["in a training"] += 1
                return
            time.sleep(0.02)

    def _being_written(self) -> bool:
        runs, drawn = self.folder / "chaos" / "runs", self.folder / "chaos" / "figures" / "smoke"
        states = (path for path in runs.glob("*/state/.*") if path.is_file())
        return any(states) or any(drawn.glob(".g-*")) or any((runs / "cache").glob(".*"))

    def kill_publish(self) -> None:
        """Kill `publish`, and see that every notebook is whole."""
        running = self.start("chaos", "publish", "--profile", "smoke")
        time.sleep(self.random.uniform(0.3, 3.0))
        _kill(running, self.random.choice(KINDS))
        running.wait(timeout=60)
        running.stderr and running.stderr.close()
        self.counts["publish"] += 1
        for path in (self.checkout / "notebooks").glob("*.ipynb"):
            try:
                json.loads(path.read_text())
            except ValueError:
                self.complaints.append(f"publish left {path.name} torn")

    def flip_a_byte(self) -> None:
        """Flip one bit in the newest state of a training, as a failing disk does."""
        states = sorted((self.folder / "chaos" / "runs").glob("*/state/*.safetensors"), key=lambda p: p.stat().st_mtime)
        if states:
            raw = bytearray(states[-1].read_bytes())
            raw[self.random.randrange(len(raw) // 2, len(raw))] ^= 1
            states[-1].write_bytes(raw)
            self.counts["flipped bytes"] += 1

    def fill_the_disk(self, notebook: str) -> None:
        """Draw while no file may grow: the call has to end in a sentence."""
        code, output = self.to_the_end("chaos", *self.figures(notebook), limit=_LIMIT)
        if code == 0:
            return  # it had nothing to write
        self.counts["full disks"] += 1
        if code != 2 or "Traceback" in output:
            self.complaints.append(f"a full disk ended {notebook} with {code}: {output[-300:]}")

    def two_at_once(self, notebook: str) -> None:
        """A second call while the first runs is refused; the first goes on."""
        first = self.start("chaos", *self.figures(notebook))
        lock = self.folder / "chaos" / "runs" / "figures.lock"
        while first.poll() is None and not _held(lock):
            time.sleep(0.05)
        code, output = self.to_the_end("chaos", *self.figures(notebook))
        if first.poll() is None:
            self.counts["two at once"] += 1
            if code != 2 or "another `make figures` is running" not in output:
                self.complaints.append(f"the second of two calls ended with {code}: {output[-300:]}")
        _kill(first, "SIGTERM")
        first.communicate()

    def compare(self, notebook: str) -> None:
        """Bring a notebook to its end, and name what is lost or different."""
        code, output = self.to_the_end("chaos", *self.figures(notebook))
        if code:
            self.complaints.append(f"{notebook} does not end: {output[-300:]}")
        peace, chaos = self.folder / "peace", self.folder / "chaos"
        for key in sorted(self.weights[notebook]):
            calm, disturbed = (place / "runs" / key / "weights.safetensors" for place in (peace, chaos))
            same = disturbed.exists() and calm.read_bytes() == disturbed.read_bytes()
            self._note(key, disturbed.exists(), same)
        for artefact in artefacts_of(notebook):
            calm, disturbed = (_settled(rows_of(p / "figures" / "smoke" / f"{artefact}.json")) for p in (peace, chaos))
            self._note(artefact, bool(disturbed), calm == disturbed)
        self.counts["drawn to the end"] += 1

    def _note(self, fact: str, held: bool, same: bool) -> None:
        if not held:
            self.lost.append(fact)
        elif not same:
            self.different.append(fact)

    def run(self, kills: int) -> dict[str, Any]:
        """A whole campaign; returns its record."""
        start = time.monotonic()
        self.undisturbed()
        for number in range(kills):
            notebook = self.notebooks[number * len(self.notebooks) // kills]
            if number % 10 == 9:
                self.kill_publish()
            while not self.kill_once(
                notebook, number % 10 == 4 and notebook == self.notebooks[0]
            ):  # drawn to the end: from the beginning again
                self.compare(notebook)
                shutil.rmtree(self.folder / "chaos")
            if number % 10 == 4:
                self.flip_a_byte()
            if number % 25 == 7:
                self.fill_the_disk(notebook)
            if number % 25 == 8:
                self.two_at_once(notebook)
            if number + 1 == kills or self.notebooks[(number + 1) * len(self.notebooks) // kills] != notebook:
                self.compare(notebook)
        record = {"kills": sum(self.counts[kind] for kind in KINDS), "notebooks": list(self.notebooks)}
        record |= {"lost": self.lost, "different": self.different, "complaints": self.complaints}
        return record | {"counts": dict(sorted(self.counts.items())), "seconds": round(time.monotonic() - start)}


def _kill(running: subprocess.Popen[str], kind: str) -> None:
    with contextlib.suppress(ProcessLookupError, psutil.Error):
        if kind == "SIGTERM":
            running.send_signal(signal.SIGTERM)
        elif kind == "head alone":
            running.kill()
        else:
            tree = [*psutil.Process(running.pid).children(recursive=True), psutil.Process(running.pid)]
            for process in tree:
                with contextlib.suppress(psutil.Error):
                    process.kill()


def _held(lock: Path) -> bool:
    """Whether a process holds a lock, told without taking it."""
    if not lock.exists():
        return False
    inode = str(lock.stat().st_ino)
    return any(line.split()[5].endswith(f":{inode}") for line in Path("/proc/locks").read_text().splitlines())


def _settled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without those that time something."""
    return [row for row in rows if not any(word in row.get("metric", "") for word in _CLOCK)]
