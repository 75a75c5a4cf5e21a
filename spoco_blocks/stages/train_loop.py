"""The loop around training steps: curves, validation, states to continue from, and what a user should know."""

from __future__ import annotations

import copy
import logging
import math
import time
from dataclasses import dataclass
from typing import Any

from spoco_blocks.engine.deadline import Closing
from spoco_blocks.engine.layout import ModelResults
from spoco_blocks.errors import HandOverError, TrainingStoppedError
from spoco_blocks.learn.curves import Curves, Row
from spoco_blocks.learn.loader import Loader
from spoco_blocks.learn.recommend import Recommendation, object_distance, recommend
from spoco_blocks.learn.resume import StopSignal, save_state, stop_signal
from spoco_blocks.learn.selection import Selection, Weights
from spoco_blocks.learn.train import Training
from spoco_blocks.learn.validation import Validation

log = logging.getLogger(__name__)

LINES = 20
VALIDATIONS, ITERATIONS_BETWEEN = 10, 25
# Part of the time of training that validation may take where `validate_every` is left to us.
VALIDATION_SHARE = 0.1
# Checks in a row that must find all or no voxels foreground before the alarm.
COLLAPSED_CHECKS = 3


def spacing(iterations: int) -> int:
    """Give the iterations between validations, where nobody chose them."""
    return max(ITERATIONS_BETWEEN, iterations // VALIDATIONS)


@dataclass
class Clock:
    """Where the time goes, in seconds of this start of the run: in steps, waiting for data, in validation."""

    steps: int = 0
    training: float = 0.0
    waiting: float = 0.0
    validation: float = 0.0
    _opened: bool = False

    def count(self, waited: float, total: float) -> None:
        """Count a step; not the first, which waits for volumes to be opened."""
        if self._opened:
            self.steps, self.training, self.waiting = self.steps + 1, self.training + total, self.waiting + waited
        self._opened = True

    @property
    def speed(self) -> float:
        """Iterations per second, validation not counted."""
        return self.steps / self.training if self.training else 0.0

    @property
    def waiting_fraction(self) -> float:
        """Part of the time of training that was spent waiting for data."""
        return self.waiting / self.training if self.training else 0.0


class TrainingRun:
    """A run from its first or last state to its end. Of several processes, the first writes and validates.

    Parameters
    ----------
    training : Training
        The steps.
    loader : Loader
        The crops.
    validation : Validation or None
        What it is judged by; None in the other processes.
    results : ModelResults
        Where curves and states go.
    identity : str
        Digest of everything that decides the result: a state of another identity is not continued.
    deadline : float or None
        When this process will be ended, in Unix seconds: it stops in time.
    """

    def __init__(
        self,
        training: Training,
        loader: Loader,
        validation: Validation | None,
        results: ModelResults,
        identity: str,
        deadline: float | None = None,
    ) -> None:
        self.training, self.loader, self.validation = training, loader, validation
        self.results, self.identity, self.settings = results, identity, training.settings
        self.every = self.settings.validate_every or spacing(self.settings.iterations)
        self.selection, self.clock = Selection(), Clock()
        self.closing = Closing(deadline, waves=1)
        self.checks, self.collapsed, self.collapse = 0, 0, ""
        self.finished = False
        self._saved = time.monotonic()

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state."""
        self.training.load(state["training"])
        self.selection = Selection(**state["selection"])
        for name in ("every", "checks", "collapsed", "collapse", "finished"):
            setattr(self, name, state[name])
        log.info("continuing after iteration %d of %d", self.training.iteration, self.settings.iterations)

    def run(self) -> Row:
        """Run all steps that are left; give the means of the last tenth.

        Raises
        ------
        TrainingStoppedError
            When told to stop; the state is saved.
        HandOverError
            When the deadline is near; the state is saved.
        TrainingError
            When training diverges.
        """
        with stop_signal() as stop:
            if self.training.group.rank > 0:
                self._steps(None, stop)
                return {}
            with Curves(self.results.curves, self.results.tensorboard, self.training.iteration) as curves:
                self._steps(curves, stop)
                return curves.means(self.settings.iterations // VALIDATIONS)

    @property
    def weights(self) -> Weights:
        """States of f and g to keep: those that validated best, or the last."""
        return self.selection.weights or {"f": self.training.f.state_dict(), "g": self.training.g.state_dict()}

    def warnings(self) -> list[str]:
        """Say what a user should know."""
        found, guard = [], self.training.guard
        if self.collapsed >= min(COLLAPSED_CHECKS, max(1, self.checks)):
            found.append(collapse_warning(self.collapse))
        if guard.recoveries:
            found.append(
                f"The learning rate was lowered to {guard.factor:g} times its setting, because {guard.lost} steps were "
                "not finite: a lower training.learning_rate is safer."
            )
        return found

    def recommend(self) -> Recommendation:
        """Say what the network that is kept is best used with."""
        assert self.validation is not None
        network = copy.deepcopy(self.training.g)
        network.load_state_dict(self.weights["g"])
        training = self.training
        advice = recommend(
            network.eval(),
            self.validation.known,
            training.objective.coordinate_scale,
            pull=training.pull,
            distance=object_distance(training.pull, training.settings.loss),
            smallest_voxels=self.validation.smallest_voxels,
            device=training.device,
        )
        log.info("recommended: %s, foreground above %g", advice.kind, advice.foreground_threshold)
        return advice

    def _steps(self, curves: Curves | None, stop: StopSignal) -> None:
        training, iterations = self.training, self.settings.iterations
        batches = self.loader.batches(training.iteration, iterations)
        while training.iteration < iterations and not self.finished:
            start = time.perf_counter()
            batch = next(batches)
            loaded = time.perf_counter()
            enough = self.selection.exhausted(self.settings.patience)
            values, (told, enough) = training.step(batch, (stop.given or self.closing(), enough))
            self.clock.count(loaded - start, time.perf_counter() - start)
            if curves is not None:
                self._note(curves, values)
            self.finished = enough
            due = time.monotonic() - self._saved > 60 * self.settings.save_every_minutes
            if curves is not None and (told or enough or due or training.iteration == iterations):
                self._save(curves)
            if told and training.iteration < iterations:
                training.group.wait()
                raise self._stopped(stop)
            self.closing.finished(time.perf_counter() - start)

    def _stopped(self, stop: StopSignal) -> TrainingStoppedError | HandOverError:
        done = f"after iteration {self.training.iteration} of {self.settings.iterations}"
        saved = f"its state is saved in {self.results.state}. Start it again to continue."
        if stop.given:
            return TrainingStoppedError(f"training was told to stop {done}; {saved}")
        return HandOverError(f"training stops {done}, as the time of its job is nearly over; {saved}", advanced=True)

    def _note(self, curves: Curves, values: Row) -> None:
        """Keep what a step gave, validate when it is time, speak now and then."""
        iteration, iterations = self.training.iteration, self.settings.iterations
        if iteration % self.every == 0 or iteration == iterations:
            values |= self._validate()
        lines = max(1, iterations // LINES)
        speaks = iteration % lines == 0
        if speaks:
            speed = {"iterations_per_second": self.clock.speed, "waiting": self.clock.waiting_fraction}
            values |= speed if self.clock.steps else {}
        curves.add(iteration, values)
        if speaks:
            left = (iterations - iteration) / self.clock.speed if self.clock.steps else math.nan
            log.info("iteration %d of %d, %.0f s left: %s", iteration, iterations, left, curves.summary(lines))
            curves.write()

    def _validate(self) -> Row:
        if self.validation is None:
            return {}
        start, iteration = time.perf_counter(), self.training.iteration
        values = self.validation(self.training)
        self.clock.validation += time.perf_counter() - start
        self.checks += 1
        shown = ("mean_iou", "recall", "sbd", "foreground_fraction")
        names = [f"{self.validation.prefix}_{name}" for name in shown]
        log.info("iteration %d: %s", iteration, ", ".join(f"{n} {values[n]:.3f}" for n in names if n in values))
        self._watch_foreground(values)
        if self.validation.selects:
            weights = {"f": self.training.f.state_dict(), "g": self.training.g.state_dict()}
            self.selection.consider(iteration, values[self.validation.criterion], weights)
        if self.checks == 1 and self.settings.validate_every is None and self.clock.steps:
            # Powers of two: what is measured here must not make two runs differ when it hardly differs.
            share = self.clock.validation / self.clock.training / VALIDATION_SHARE
            self.every *= 2 ** max(0, math.ceil(math.log2(share)))
        return values

    def _watch_foreground(self, values: Row) -> None:
        assert self.validation is not None
        collapse = self.validation.collapsed(values) or ""
        again = collapse == self.collapse
        self.collapsed = self.collapsed * again + 1 if collapse else 0
        self.collapse = collapse
        if self.collapsed == COLLAPSED_CHECKS:
            log.warning("%s", collapse_warning(self.collapse))

    def _save(self, curves: Curves) -> None:
        """Write the curves first: a state must not know iterations that they do not have."""
        curves.write()
        state = {name: getattr(self, name) for name in ("every", "checks", "collapsed", "collapse", "finished")}
        state |= {"training": self.training.state(), "selection": self.selection.state()}
        save_state(self.results.state, self.identity, state)
        self._saved = time.monotonic()


def collapse_warning(collapse: str) -> str:
    """Say that the foreground collapsed, and what to do."""
    if collapse == "everything":
        return (
            "The network takes nearly every voxel for foreground (more than 99 %): it has not learnt what background "
            "is. Annotate some background far from objects (labels.background), keep labels.shell_voxels above 0, or "
            "lower training.object_patch_fraction."
        )
    return (
        "The network takes hardly any voxel for foreground (less than 1 %, and fewer than are annotated): annotate "
        "more objects, raise training.object_patch_fraction, or train longer."
    )
