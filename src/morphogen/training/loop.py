"""The one training loop: it owns devices, precision, accumulation, EMA, clipping, checkpoints, resume and logs."""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list, reduce
from torch import Tensor

from morphogen.errors import InputError, StoppedError, WorkError
from morphogen.files import refuse_file, write_text
from morphogen.progress import track
from morphogen.training.checkpoint import load_checkpoint, newest_checkpoint, prune, save_checkpoint, write_folder
from morphogen.training.ema import EMA
from morphogen.training.optim import PhaseOptimizer
from morphogen.training.processes import processes, sum_gradients
from morphogen.training.rng import permutation_index, seed_of
from morphogen.training.task import Draw, LoopConfig, Phase, Progress, Task


def fit(task: Task, config: LoopConfig, out: Path, run_config: Mapping[str, Any], label: str = "training") -> Path:
    """Train `task` to its end and return ``out/final``; called again, continue where it stopped.

    The result depends on the seed alone: a killed run that is started again ends with the same bits (same machine,
    same number of threads), and any number of processes trains on the same global batches.

    Args:
        task: What to train.
        config: How.
        out: Run folder: config.yaml, metrics.jsonl, previews/, checkpoints/, final/.
        run_config: The method's resolved settings; with `config` they identify the run.
        label: What the progress bar says.

    Raises:
        InputError: `out` holds a run with other settings.
        StoppedError: A signal asked for it; all processes leave after the same step, with a checkpoint.
        WorkError: The loss is not finite, or the disk is full.
    """
    final = out / "final"
    run = None if final.exists() else _Run(task, config, out, label)  # refuses what cannot be; nothing is written yet
    claim(out, {**run_config, "training": identity(config)})
    return final if run is None else run.fit()


def refuse(task: Task, config: LoopConfig, out: Path) -> None:
    """Refuse what `fit` would refuse of a task, before anything is written: for what has work to do before `fit`.

    Raises:
        InputError: There is nothing to train on, or it cannot be trained so on this machine.
    """
    _Run(task, config, out, "")


class _Run:
    """One call of `fit`: the objects that live as long as it does."""

    def __init__(self, task: Task, config: LoopConfig, out: Path, label: str) -> None:
        self.task, self.config, self.out, self.label = task, config, out, label
        # One process trains several things, each in a precision of its own; accelerate would keep that of the first.
        AcceleratorState._reset_state()
        processes()  # refuses those that would train alone
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision, log_with=list(config.report_to) or None, project_dir=str(out)
        )
        self.device = self.accelerator.device
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self._check()
        torch.manual_seed(seed_of(config.seed, "init"))
        task.modules.to(self.device)
        task.to(self.device)
        self.phases = list(task.phases())
        self.optimizers = {phase.name: PhaseOptimizer(phase, config.optimizer) for phase in self.phases}
        trained = {id(p) for phase in self.phases for p in phase.parameters}
        named = {name: p for name, p in task.modules.named_parameters() if id(p) in trained}
        self.ema = EMA(named, config.ema_decay) if config.ema_decay else None
        self.best: dict[str, Tensor] = {}
        self.best_score = -math.inf
        self.stop = False

    def _check(self) -> None:
        config = self.config
        if len(self.task) == 0:
            raise InputError(f"{self.out}: there is nothing to train on; the training part is empty")
        if config.train_batch_size < self.world * config.gradient_accumulation_steps:
            raise InputError(
                f"--train-batch-size {config.train_batch_size}: fewer rows than {self.world} processes x "
                f"{config.gradient_accumulation_steps} accumulation steps; raise it"
            )
        if config.mixed_precision == "fp16" and self.device.type == "cpu":
            raise InputError("--mixed-precision fp16: needs a GPU; use bf16 or no on the CPU")

    def fit(self) -> Path:
        config, start = self.config, self._resume()
        if config.report_to:
            self.accelerator.init_trackers("morphogen")
        self.task.modules.train()
        steps = range(start, config.max_train_steps)
        with self._stop_on_sigterm():
            for step in track(steps, self.label):
                progress = Progress(step, config.max_train_steps)
                self._log(step, self._step(progress))
                done = step + 1
                if done < config.max_train_steps and config.validation_steps and done % config.validation_steps == 0:
                    self._look(done)
                stop = self._is_to_stop()
                if stop or done % config.checkpointing_steps == 0 or done == config.max_train_steps:
                    self._save(done)
                if stop:
                    self.accelerator.wait_for_everyone()  # a launcher kills the others once one has left
                    raise StoppedError(f"{self.out}: stopped by a signal after step {done}; run the same command again")
        return self._finish()

    def _step(self, progress: Progress) -> dict[str, float]:
        torch.manual_seed(seed_of(self.config.seed, "modules", progress.step, self.rank))
        micro = [(self.task.batch(draws), len(draws)) for draws in self._draws(progress.step)]
        batches = [(_to(batch, self.device), rows) for batch, rows in micro]
        scalars: dict[str, float] = {}
        for phase in self.phases:
            if progress.step % phase.every == 0:
                prefix = f"{phase.name}/" if len(self.phases) > 1 else ""
                found = self._phase(phase, batches, progress)
                scalars |= {prefix + name: value for name, value in found.items()}
        if self.ema:
            self.ema.update()
        return scalars

    def _phase(self, phase: Phase, batches: list[tuple[Any, int]], progress: Progress) -> dict[str, float]:
        """Accumulate the gradient of the global mean, reduce it over processes, update."""
        self.task.modules.zero_grad(set_to_none=True)
        optimizer, scaler = self.optimizers[phase.name], self.accelerator.scaler
        totals: dict[str, Tensor] = {}
        for batch, rows in batches:
            with self.accelerator.autocast():
                losses = phase.loss(batch, progress)
            share = rows / self.config.train_batch_size
            loss = share * torch.stack([v.float() for k, v in losses.items() if not k.startswith("log/")]).sum()
            (scaler.scale(loss) if scaler else loss).backward()
            for name, value in {**losses, "loss": loss / share}.items():
                totals[name] = totals.get(name, 0.0) + share * value.detach().float()
        if self.world > 1:
            sum_gradients(optimizer.parameters)
            totals = reduce(totals, "sum")
        values = {name: float(value) for name, value in totals.items()}
        if scaler:
            scaler.unscale_(optimizer.inner)
        elif not math.isfinite(values["loss"]):
            raise WorkError(
                f"{self.out}: the loss is {values['loss']} at step {progress.step}; "
                "lower --lr or train with --mixed-precision no, then run again"
            )
        if scaler is None:
            values["grad_norm"] = float(optimizer.step(progress, self.config.max_grad_norm))
        else:
            self._scaled_step(scaler, optimizer, progress)
        return values

    def _scaled_step(self, scaler: Any, optimizer: PhaseOptimizer, progress: Progress) -> None:
        finite = not any(
            v.item() for v in scaler._per_optimizer_states[id(optimizer.inner)]["found_inf_per_device"].values()
        )
        if finite:
            optimizer.step(progress, self.config.max_grad_norm)
        scaler.update()

    def _draws(self, step: int) -> Iterator[list[Draw]]:
        """This process's rows of the global batch, one list per accumulation step."""
        size, seed, n = self.config.train_batch_size, self.config.seed, len(self.task)
        parts = self.world * self.config.gradient_accumulation_steps
        bounds = [size * k // parts for k in range(parts + 1)]
        first = self.rank * self.config.gradient_accumulation_steps
        for k in range(first, first + self.config.gradient_accumulation_steps):
            positions = range(bounds[k], bounds[k + 1])
            yield [
                Draw(permutation_index(seed, n, step * size + p), seed_of(seed, "sample", step, p)) for p in positions
            ]

    def _averaged(self) -> Any:
        return self.ema.swapped_in() if self.ema else nullcontext()

    @torch.no_grad()
    def _look(self, step: int) -> None:
        """Validation and previews with the averaged weights; they draw from the global generator, which is put back."""
        state = torch.get_rng_state()
        self.task.modules.eval()
        with self._averaged():
            scores = dict(self.task.validate(step))
            if self.accelerator.is_main_process:
                folder = self.out / "previews"
                folder.mkdir(exist_ok=True)
                self.task.preview(step, folder)
            if self.config.keep_best and scores.get("score", -math.inf) > self.best_score:
                self.best_score = scores["score"]
                self.best = {name: value.detach().clone() for name, value in self.task.modules.state_dict().items()}
        self.task.modules.train()
        torch.set_rng_state(state)
        if scores:
            self._log(step - 1, {f"val/{name}": value for name, value in scores.items()})

    def _save(self, step: int) -> None:
        if not self.accelerator.is_main_process:
            return
        tensors = {"model": self.task.modules.state_dict()}
        tensors |= {f"optimizer-{name}": optimizer.state() for name, optimizer in self.optimizers.items()}
        state: dict[str, Any] = {}
        if self.ema:
            tensors["ema"] = self.ema.state()
            state["ema_updates"] = self.ema.updates
        if self.best:
            tensors["best"] = self.best
            state["best_score"] = self.best_score
        if self.accelerator.scaler:
            state["scaler"] = self.accelerator.scaler.state_dict()
        save_checkpoint(self.out / "checkpoints", step, tensors, state)
        prune(self.out / "checkpoints", self.config.checkpoints_total_limit)

    def _resume(self) -> int:
        newest = newest_checkpoint(self.out / "checkpoints") if self.accelerator.is_main_process else None
        path: Path | None = broadcast_object_list([newest])[0]
        step = 0
        if path:
            tensors, state = load_checkpoint(path)
            step = int(state["step"])
            self.task.modules.load_state_dict(tensors["model"])
            for name, optimizer in self.optimizers.items():
                optimizer.load(tensors[f"optimizer-{name}"])
            if self.ema:
                self.ema.load(tensors["ema"], state["ema_updates"])
            if "best" in tensors:
                self.best, self.best_score = tensors["best"], state["best_score"]
            if self.accelerator.scaler:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        if self.accelerator.is_main_process:
            _truncate(self.out / "metrics.jsonl", step, ended=step == self.config.max_train_steps)
        self.accelerator.wait_for_everyone()  # `_finish` removes the checkpoint that another process may still read
        return step

    def _finish(self) -> Path:
        final, config = self.out / "final", self.config
        self._look(config.max_train_steps)
        with self._averaged():
            self.task.modules.eval()
            if self.best:
                if config.keep_last and self.accelerator.is_main_process:
                    write_folder(self.out / "last", self.task.save)
                self.task.modules.load_state_dict(self.best)
            if self.accelerator.is_main_process:
                write_folder(final, self.task.save)
                shutil.rmtree(self.out / "checkpoints", ignore_errors=True)  # `final` has what a later call needs
        self.accelerator.wait_for_everyone()
        for tracker in self.accelerator.trackers:  # not `end_training`: the next `fit` needs the process group
            tracker.finish()
        return final

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        if not self.accelerator.is_main_process:
            return
        with (self.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self.config.report_to:
            self.accelerator.log(dict(values), step=step)

    def _is_to_stop(self) -> bool:
        """Whether a signal has reached any process: all leave after the same step, with its checkpoint written."""
        if self.world == 1:
            return self.stop
        return bool(reduce(torch.tensor(int(self.stop), device=self.device), "sum"))

    @contextmanager
    def _stop_on_sigterm(self) -> Iterator[None]:
        """A polite kill (SIGTERM, as schedulers send it) saves a checkpoint first."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def request(*_: object) -> None:
            self.stop = True

        previous = signal.signal(signal.SIGTERM, request)
        try:
            yield
        except RuntimeError as error:  # of a collective, whose other processes have gone
            if self.stop and self.world > 1:
                raise StoppedError(
                    f"{self.out}: stopped by a signal within a step; run the same command again"
                ) from error
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)


def _to(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


def identity(config: LoopConfig) -> dict[str, Any]:
    """What tells a run from another: not in how many parts a step is computed, which changes rounding alone.

    The optimiser is among the method's own settings, where it may be open until the device is known.
    """
    left = ("gradient_accumulation_steps", "optimizer", "keep_last")
    return {name: value for name, value in asdict(config).items() if name not in left}


def claim(out: Path, settings: Mapping[str, Any]) -> None:
    """Make `out` the folder of the run with these settings.

    `fit` does it; what has work to do before `fit` does it first.

    Where there are several processes, all of them call it: each looks before the main one writes.

    Raises:
        InputError: `out` holds a run with other settings, or other files.
    """
    state = processes()
    refuse_file(out)
    path = out / "config.yaml"
    text = yaml.safe_dump(json.loads(json.dumps(settings, default=str)), sort_keys=True)
    if path.exists():
        if path.read_text() != text:
            differing = _differences(yaml.safe_load(path.read_text()), yaml.safe_load(text))
            raise InputError(f"{out}: holds a run with other settings ({differing}); choose another --out or remove it")
    elif out.exists() and any(not p.name.startswith(".config.yaml.") for p in out.iterdir()):
        raise InputError(f"{out}: is not empty and holds no run; choose another --out")
    state.wait_for_everyone()
    if state.is_main_process and not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    state.wait_for_everyone()


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    there, asked = _flat(old), _flat(new)
    keys = [k for k in sorted(there.keys() | asked.keys()) if there.get(k) != asked.get(k)]
    return ", ".join(f"{k}: {there.get(k)!r} there, {asked.get(k)!r} asked" for k in keys)[:300]


def _flat(settings: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """Settings within settings by dotted names, so that a difference is one word and not two long groups."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{within}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return found


def _truncate(path: Path, step: int, ended: bool) -> None:
    """Forget the rows that the resumed run will write again: those from `step` on, and the last validation."""
    if not path.exists():
        return

    def again(row: Mapping[str, Any]) -> bool:
        last = ended and row["step"] == step - 1 and any(name.startswith("val/") for name in row)
        return last or row["step"] >= step

    lines = [line for line in path.read_text().splitlines() if line.endswith("}")]  # a kill may have cut the last one
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(line + "\n" for line in lines if not again(json.loads(line))))
    temporary.replace(path)
