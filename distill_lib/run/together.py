"""The trainings of a notebook in several processes, launched by accelerate, before papermill runs the notebook.

Each process runs the notebook's cells, without a kernel, and so comes to the same trainings, which they share
(`engine.sharing`). What cells write and print on the way is thrown away. Papermill then finds the trainings finished,
with the pictures that were drawn meanwhile, and has the rest to measure.

accelerate launch --multi_gpu --num_processes 4 -m distill_lib.run train 07_text_to_image_in_few_steps --profile gpu
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from distill_lib.paths import ROOT, runs_folder
from distill_lib.run import lanes
from distill_lib.run.guard import Failure, kept_log
from distill_lib.run.notebooks import check_parameters, code_cells, for_parameters
from distill_lib.run.voice import Voice

_SENTENCE = re.compile(r"^error: (.+?)(?: \(log: .*\))?$", re.MULTILINE)
_ENDED = re.compile(r"Root Cause.*?exitcode *: -\d", re.DOTALL)  # by a signal, as torchrun reports it


def read_processes(text: str) -> int:
    """The number of processes that PROCESSES asks for.

    Raises:
        ValueError: it is no whole number from 1 on.
    """
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"PROCESSES={text[:60]} should be a whole number from 1 on")
    return int(text)


def check_room(processes: int) -> None:
    """Refuse more processes than there are GPUs, or without a GPU more than cores: they would wait for each other.

    Raises:
        ValueError: names both numbers.
    """
    if processes == 1:
        return
    room, kind = (lanes.gpus(), "GPU") if lanes.gpus() else (lanes.cores(), "core")
    if processes > room:
        most = f"{room} {kind}{'s' * (room > 1)} of this machine"
        raise ValueError(f"PROCESSES={processes} is more than the {most}; take {room} at most")


def launch(name: str, parameters: dict[str, Any], processes: int, voice: Voice) -> None:
    """Train what a notebook trains in so many processes; what they say goes to `voice`.

    Raises:
        ValueError: there are more of them than there is room for.
        Failure: one of them ended in a sentence, or from outside.
        RuntimeError: one ended by a bug; holds what it said.
    """
    check_room(processes)
    threads = max(1, int(os.environ.get("OMP_NUM_THREADS") or processes) // processes)
    voice.say(f"{name}: its trainings in {processes} processes of {threads} thread{'s' * (threads > 1)} each")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as settings:
        json.dump({"parameters": parameters}, settings)
        settings.flush()
        command = [
            sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes),
            "--num_machines", "1", "--main_process_port", "0", "--mixed_precision", "no", "--dynamo_backend", "no",
            "-m", "distill_lib.run", "train", name, "--settings", settings.name, "--seed", str(parameters["seed"]),
        ]  # fmt: skip
        environment = os.environ | {"PYTHONPATH": str(ROOT), "DISTILL_OWNER": str(runs_folder())}
        environment |= {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
        lines: list[str] = []
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as running:
            for line in running.stdout or ():
                lines.append(line)
                if ": step " in line or " is being " in line:
                    voice.write(line)
    if running.returncode:
        text = "".join(lines)
        if sentence := _SENTENCE.search(text):
            raise Failure(f"{name}: {sentence[1]}", str(kept_log(name, text)))
        if _ENDED.search(text):
            message = f"{name}: a process was ended from outside; the same command goes on"
            raise Failure(message, str(kept_log(name, text)))
        raise RuntimeError(f"{name}: a process failed:\n{text}")


def train(name: str, parameters: dict[str, Any]) -> None:
    """Run the cells of a notebook in this process, which is one of several, or alone; only the first says something.

    Raises:
        ValueError: a parameter is refused; as the cells.
    """
    check_parameters(name, parameters)
    with tempfile.TemporaryDirectory(prefix="distill-train-") as place, contextlib.ExitStack() as quiet:
        os.environ |= {"DISTILL_FIGURES": place, "MPLBACKEND": "agg"}
        os.environ.pop("DISTILL_WRITTEN", None)
        nowhere = quiet.enter_context(Path(os.devnull).open("w"))
        quiet.enter_context(contextlib.redirect_stdout(nowhere))
        if int(os.environ.get("RANK") or 0):
            quiet.enter_context(contextlib.redirect_stderr(nowhere))
        cells: dict[str, Any] = {"__name__": "__main__"}
        for number, cell in enumerate(code_cells(for_parameters(name, parameters)), 1):
            exec(compile(cell.source, f"{name}, cell {number}", "exec"), cells)
            if "parameters" in cell.metadata.get("tags", []):
                cells |= parameters
