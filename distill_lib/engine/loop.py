"""What every training loop shares: counted draws, optimiser, average of weights, checkpoints, progress.

A method is a generator: `for step, draws in loop: ...; yield loop.update(loss)`. The caller decides what to do with the
progress. Randomness comes from `Draws`, a function of (seed, step, sample index), so that a run that was killed, or is
split over processes, meets the same numbers; gradients are averaged over processes (`sharing`).
"""

import contextlib
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import torch
from accelerate import Accelerator
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as validated
from torch import Tensor, nn

from distill_lib.diffusion.noise import Draws
from distill_lib.engine import precision
from distill_lib.engine.bounds import Count, Decay, NonNegative, Number, Positive
from distill_lib.engine.files import all_finite
from distill_lib.engine.interrupts import Watch
from distill_lib.engine.precision import default_device
from distill_lib.engine.savings import Savings, checkpoint, optimizer_of, rounded
from distill_lib.engine.sharing import agreed, average_gradients, check_kind
from distill_lib.engine.state import packed, unpacked
from distill_lib.engine.store import Run
from distill_lib.engine.trainable import Trainable, clip_each, players


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class TrainSettings:
    """Settings of one training.

    batch_size counts samples a step over all processes; warmup is in steps, after which lr falls linearly to 0;
    ema is the decay of the average of weights, 0 for none; snapshots is how many copies of the averaged weights are
    kept on the way, evenly spaced; bf16 is left to `precision.current` unless it is given.
    """

    steps: NonNegative
    batch_size: Count
    lr: Positive
    warmup: NonNegative = 100
    ema: Decay = 0.999
    clip: Positive = 1.0
    seed: NonNegative = 0
    bf16: bool | None = None
    snapshots: NonNegative = 0
    checkpoint_seconds: Number = 60.0
    savings: ClassVar[Savings] = Savings()

    def with_seed(self, seed: int) -> "TrainSettings":
        """The same settings with another seed."""
        return replace(self, seed=seed)


@validated(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FrugalSettings(TrainSettings):
    """Settings of a training that needs less memory; a kind of its own, so that keys of all others hold no savings."""

    savings: Savings


@dataclass(frozen=True)
class Progress:
    """State of a training after a step: the loss is smoothed over about 50 steps."""

    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds: float


class Loop:
    """Steps of one training of `net.module`, resumed where `run` stands; none are left of a finished one.

    Iterating yields (step, draws), once for each slice of a batch (`Savings`); the body computes a loss and calls
    `update`. `share` counts the samples of a slice that fall to this process. Of a module that holds several networks,
    `rates` multiplies the learning rate of those whose parameters' names start so. A parameter that a step gives no
    gradient stays as it is. Gradients of each player of a team are clipped by their own norm (`trainable.clip_each`).
    The body computes in `precision`, in which the run was begun. A signal to stop waits for
    the end of `update` (`interrupts`).

    Raises:
        ValueError: the batch cannot be shared evenly by the processes and slices, or the network holds buffers, which
            the average of weights would lose, or weights that are not finite; as `checkpoint`, `optimizer_of` and
            `check_kind`.
    """

    def __init__(
        self, net: Trainable, settings: TrainSettings, run: Run, rates: Mapping[str, float] | None = None
    ) -> None:
        self.settings, self.run = settings, run
        self.accelerator = Accelerator(cpu=default_device().type == "cpu")
        savings, processes = settings.savings, self.accelerator.num_processes
        if settings.batch_size % (processes * savings.slices):
            slices = f" with {savings.slices} slices each" * (savings.slices > 1)
            shared = f"batch_size={settings.batch_size} cannot be shared by {processes} processes{slices}"
            raise ValueError(f"{shared}; take a multiple of them")
        check_kind(self.accelerator)
        named = dict(net.module.named_parameters())
        self.names, self.parameters, self._players = list(named), list(named.values()), players(net.module)
        if set(net.module.state_dict()) - {*named}:
            raise ValueError("a network with buffers cannot be trained here: use group instead of batch normalisation")
        self.share = settings.batch_size // processes // savings.slices
        self.device = self.accelerator.device
        net.module.to(self.device).train()
        if savings.checkpointing:
            checkpoint(net.module)
        kept_on = torch.device("cpu") if savings.offload else self.device
        self.average = [p.detach().to(kept_on, copy=True) for p in self.parameters]
        self.optimizer = optimizer_of(named, rates or {}, settings.lr, savings.optimizer)
        self.optimizer.zero_grad()  # of a step that was cut off: a network may have begun another training
        self._losses: list[Tensor] = []  # of the slices of a step
        self.step, self.loss, self.seconds = 0, float("nan"), 0.0
        parts = settings.snapshots + 1
        self._kept = {settings.steps * i // parts for i in range(1, parts)}
        self.precision = {True: "bf16", False: "fp32"}.get(settings.bf16) or run.precision or precision.current()
        if not run.done:
            run.start(precision=self.precision)
        self._resume()
        self._kept_step, self._inside, self._watch = self.step, contextlib.ExitStack(), Watch(self._interrupted)
        self._lent = contextlib.ExitStack()  # frozen networks in another form, until the training is over
        all_finite({name: value.detach() for name, value in named.items()}, f"{run.key} at step {self.step}")

    def __iter__(self) -> Iterator[tuple[int, Draws]]:
        settings, slices = self.settings, self.settings.savings.slices
        first = self.share * slices * self.accelerator.process_index
        local = (first + torch.arange(self.share * slices)).to(self.device).split(self.share)
        self._clock = self._saved = time.perf_counter()
        with self._lent, self._watch, self._inside:  # all end with the generator, however that ends
            for step in range(self.step, settings.steps):
                for index in local:
                    self._inside.close()
                    self._inside.enter_context(precision.held(self.precision))
                    self._watch.begin()
                    yield step, Draws(settings.seed, step, index)
            self._watch.begin()
            if self.accelerator.is_main_process and not self.run.done:
                self.run.finish(self.weights())
            self.accelerator.wait_for_everyone()  # the others read what this one wrote
            self._watch.calm()

    def update(self, loss: Tensor) -> Progress:
        """One optimiser step on the mean of the losses of this process's samples, (B,).

        It is made after the last slice; until then gradients add up, and the progress is that of the step before.

        Raises:
            ValueError: the loss, or the norm of its gradient, is not finite, on any process. No weight has changed.
        """
        settings, slices = self.settings, self.settings.savings.slices
        self.accelerator.backward(loss.mean() / slices if slices > 1 else loss.mean())
        self._losses.append(loss.detach())
        if len(self._losses) < slices:
            self._inside.close()
            self._watch.calm()
            return Progress(self.step, settings.steps, self.loss, 0.0, self.seconds)
        average_gradients(self.accelerator, self.parameters)
        rate = settings.lr * min(1, (self.step + 1) / max(1, settings.warmup)) * (1 - self.step / settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        norm = clip_each(self._players, settings.clip)
        mean = self.accelerator.gather(torch.cat(self._losses)).mean()
        self._losses.clear()
        mean, norm = torch.stack([mean.double(), norm.to(mean.device).double()]).tolist()  # waits for the GPU once
        if not math.isfinite(mean) or not math.isfinite(norm):
            raise self._broken(mean, norm, rate)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        # A young average forgets its start quickly; the paper's decay holds from some hundred steps on.
        decay = min(settings.ema, self.step / (10 + self.step)) if settings.ema else 0.0
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.to(self.average[0].device) for p in self.parameters], 1 - decay)
        progress = self._progress(mean)
        self._inside.close()
        self._watch.calm()
        return progress

    def weights(self) -> dict[str, Tensor]:
        """The averaged weights by name."""
        return dict(zip(self.names, self.average, strict=True))

    def place(self, net: object) -> None:
        """Move a frozen network to where the training runs; a closed form has nothing to move.

        Where savings say so, its weights are rounded as autocast rounds them, until the training is over.
        """
        if isinstance(module := getattr(net, "module", None), nn.Module):
            module.to(self.device)
            if self.settings.savings.frozen_bf16 and self.precision == "bf16":
                self._lent.enter_context(rounded(module))

    def _progress(self, loss: float) -> Progress:
        now = time.perf_counter()
        took, self._clock = now - self._clock, now
        self.seconds += took
        self.loss = loss if self.step == 1 else self.loss + (loss - self.loss) / min(self.step, 50)
        progress = Progress(self.step, self.settings.steps, self.loss, self.settings.batch_size / took, self.seconds)
        if self.accelerator.is_main_process:
            if self.step % max(1, self.settings.steps // 200) == 0:
                self.run.log(asdict(progress))
            if self.step in self._kept:
                self.run.save_snapshot(self.step, self.weights())
            if now - self._saved > self.settings.checkpoint_seconds and self.step < self.settings.steps:
                self._saved = now
                self._save()
        return progress

    def _broken(self, loss: float, norm: float, rate: float) -> ValueError:
        self._keep()
        self.accelerator.wait_for_everyone()
        fault = f"the norm of the gradient is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        return ValueError(
            f"{self.run.key} stops at step {self.step + 1} of {self.settings.steps}: {fault}, at a learning rate of "
            f"{rate:.3g}; take a smaller lr, or look for what is not finite in its data and its teacher; the state "
            f"before this step is kept in {self.run.folder}"
        )

    def _interrupted(self, signal: str) -> None:
        self._keep()
        if self.accelerator.is_main_process and not self.run.done:
            where = f"{self.run.key} is stopped by {signal} after step {self.step} of {self.settings.steps}"
            print(f"{where}; its state is kept, run again to go on", file=sys.stderr, flush=True)

    def _keep(self) -> None:
        if self.accelerator.is_main_process and not self.run.done and self.step > self._kept_step:
            self._save()

    def _save(self) -> None:
        state = {"step": torch.tensor(self.step), "loss": torch.tensor(self.loss, dtype=torch.float64)}
        state["seconds"] = torch.tensor(self.seconds)
        state |= packed(self.names, self.parameters, self.average, self.optimizer)
        self.run.save_state(state)
        self._kept_step = self.step

    def _resume(self) -> None:
        if self.run.done:
            self.step, kept = self.settings.steps, self.run.weights()
            state = {f"{kind}.{name}": value for name, value in kept.items() for kind in ("weight", "average")}
        elif (state := self.run.state()) is None:
            return
        else:
            self.step, self.loss, self.seconds = (state.pop(key).item() for key in ("step", "loss", "seconds"))
        unpacked(state, self.names, self.parameters, self.average, self.optimizer)


def follow(training: Iterable[Progress], title: str, every_seconds: float = 5.0) -> list[Progress]:
    """Run a training to its end and say how it goes: a line that renews itself in a terminal, else one now and then.

    Returns:
        All progress records.
    """
    history, last = [], 0.0
    for progress in training:
        history.append(progress)
        now = time.perf_counter()
        if now - last < (0.5 if sys.stderr.isatty() else every_seconds) and progress.step < progress.steps:
            continue
        last = now
        left = (progress.steps - progress.step) * progress.seconds / max(1, progress.step)
        line = (
            f"{title}: step {progress.step}/{progress.steps}  loss {progress.loss:.4f}  "
            f"{progress.images_per_second:.0f} images/s  {left:.0f} s left"
        )
        print(line, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)
    return history


def finish(net: Trainable, training: Iterable[Progress], run: Run, title: str) -> list[tuple[float, float]]:
    """Run a training to its end unless it is done, load the averaged weights into the network and freeze it.

    Where another process is training the same run, it is waited for, and its result is read.

    Returns:
        The training curve as (step, loss).
    """
    if not agreed(run.done):
        with run.training_lock():
            if not agreed(run.done):
                follow(training, title)
    net.module.load_state_dict(run.weights())
    net.module.eval().requires_grad_(False)
    return [(record["step"], record["loss"]) for record in run.progress()]
