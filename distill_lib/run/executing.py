"""One notebook by papermill, in a kernel that is always this interpreter and that no network reaches."""

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import nbformat
import psutil
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec

from distill_lib.paths import runs_folder
from distill_lib.run.guard import Failure, kept_log, sentence_of, surroundings
from distill_lib.run.notebooks import NOTEBOOKS, check_parameters, code_cells, for_parameters, read
from distill_lib.run.pace import Peak
from distill_lib.run.stale import digest, write_stamp
from distill_lib.run.together import launch
from distill_lib.run.turns import GivingWay
from distill_lib.run.voice import Voice

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class InterpreterKernel(AsyncKernelManager):
    """A kernel of this interpreter, whatever the notebook or the machine names.

    It listens on socket files in a folder that only this user can enter.
    """

    @cached_property
    def kernel_spec(self) -> KernelSpec:
        """How the kernel is started."""
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, display_name="Python 3", language="python")


def failure_path(executed: Path) -> Path:
    """Where a failed run of a notebook leaves its sentence and the place of its log."""
    return executed.with_name(f".{executed.stem}.failure.json")


def execute(name: str, out: Path, parameters: dict[str, Any], processes: int = 1) -> None:
    """Run one notebook into `out`, saying what its cells print; `out` appears when the notebook has ended well.

    What it trains is trained first, where several processes are to share that (`together`).

    Raises:
        ValueError: a parameter is refused.
        Failure: the notebook ended in a sentence; the traceback is in the log that it names.
        PapermillExecutionError: it ended by a bug.
    """
    check_parameters(name, parameters)
    out.parent.mkdir(parents=True, exist_ok=True)
    failure_path(out).unlink(missing_ok=True)
    made_of, start, peak = digest(name, str(parameters["profile"])), time.monotonic(), Peak()
    voice = Voice(name, len(code_cells(read(name))), peak.look)
    voice.say(f"{name}: running")
    try:
        with _place_of_kernel() as place:
            with voice, GivingWay(voice.say):
                if processes > 1:
                    launch(name, parameters, processes, voice)
                _papermill(name, place, parameters, voice)
            written = (place / "written").read_text().splitlines() if (place / "written").exists() else []
            shutil.copyfile(place / f"{name}.ipynb", out.with_suffix(".part"))
        out.with_suffix(".part").replace(out)
        spent = {"seconds": round(time.monotonic() - start, 1), "memory": peak.bytes}
        write_stamp(out, made_of, parameters["seed"], map(Path, written), spent)
    except Exception as error:
        log = kept_log(name, _traceback(error))
        sentence = _sentence(name, error)
        failure_path(out).write_text(json.dumps({"sentence": sentence, "log": str(log)}))
        voice.say(f"{name}: failed in cell {voice.number}; no other notebook begins")
        if sentence is None:
            raise
        raise Failure(sentence, str(log)) from None
    voice.say(f"{name}: done in {spent['seconds']:.0f} s, at most {spent['memory'] / 2**30:.1f} GB of memory")


@contextlib.contextmanager
def _place_of_kernel() -> Iterator[Path]:
    """A folder of this user's alone for sockets and for the notebook on its way; its path is short, as sockets ask.

    Those of processes that were killed go first.
    """
    root = Path(tempfile.gettempdir() if len(tempfile.gettempdir()) < 50 else "/tmp")
    for left in root.glob("distill-kernel-*"):
        if (pid := left.name.split("-")[2]).isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    place = Path(tempfile.mkdtemp(prefix=f"distill-kernel-{os.getpid()}-", dir=root))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _papermill(name: str, place: Path, parameters: dict[str, Any], voice: Voice) -> None:
    import papermill
    from traitlets.config import Config

    notebook = nbformat.from_dict(for_parameters(name, parameters))
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata.language_info = {"name": "python"}
    prepared = place / "prepared.ipynb"
    nbformat.write(notebook, prepared)
    os.environ |= {
        "DISTILL_OWNER": str(runs_folder()),  # by which an orphaned kernel is found
        "DISTILL_WRITTEN": str(place / "written"),  # where the recorder names its files
        "IPYTHONDIR": str(place / "ipython"),  # no start-up files of the user
        "PYTHONWARNINGS": "ignore:IProgress not found",  # a headless run has no widgets
        "TQDM_DISABLE": "1",  # nor a line that renews itself: bars of loading would fill the screen
    }
    for variable in ("DISTILL_PROFILE", "PYTHONSTARTUP"):
        os.environ.pop(variable, None)
    kernel = {"connection_file": str(place / "kernel.json"), "transport": "ipc"}
    papermill.execute_notebook(
        prepared,
        place / f"{name}.ipynb",
        parameters,
        cwd=str(NOTEBOOKS),
        request_save_on_cell_execute=False,  # nobody looks into its place before it has ended
        kernel_name="python3",
        language="python",
        progress_bar=False,
        stdout_file=voice,
        stderr_file=voice,
        on_cell_start=voice.begins,
        kernel_manager_class=InterpreterKernel,
        config=Config({"InterpreterKernel": kernel}),
    )


def _traceback(error: Exception) -> str:
    """The traceback of an exception, or of the cell that raised it."""
    return _COLOURS.sub("", "\n".join(getattr(error, "traceback", ()))) or "".join(traceback.format_exception(error))


def _sentence(name: str, error: Exception) -> str | None:
    """The sentence of a failed run, or None if it is a bug."""
    if type(error).__name__ == "DeadKernelError":
        return f"the kernel of {name} was ended from outside, perhaps for lack of memory; the same command goes on"
    if not hasattr(error, "ename"):
        return sentence_of(error)
    places = re.findall(r"^File (.+?):\d+", _traceback(error), re.MULTILINE)
    if error.ename == "ValueError" and places and f"{os.sep}distill_lib{os.sep}" in places[-1]:
        return f"{name}: {error.evalue}"
    sentence = surroundings(error.ename, str(error.evalue))
    return sentence and f"{name}: {sentence}"
