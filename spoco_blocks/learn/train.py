"""One training step after another: the network f by gradient descent, the network g as its moving average."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from spoco_blocks.grid import Triple
from spoco_blocks.learn.distributed import Group
from spoco_blocks.learn.guard import Guard, module_norms
from spoco_blocks.learn.intensity_views import change_intensity
from spoco_blocks.learn.loader import Batch
from spoco_blocks.learn.moving_average import follow, start_average
from spoco_blocks.learn.network import EmbeddingNetwork
from spoco_blocks.learn.network_plan import NetworkPlan, isotropic_axes
from spoco_blocks.learn.objective import Objective
from spoco_blocks.learn.precision import autocast, choose_precision, memory_format
from spoco_blocks.learn.schedule import one_cycle
from spoco_blocks.learn.seeds import Purpose, generator
from spoco_blocks.learn.views import warp
from spoco_blocks.settings.training import TrainingSettings

# Part of the run before the consistency term sets in: at first g is noise.
WARM_UP = 0.1
GRADIENT_NORM = 5.0
# Iterations between two states that a lost run falls back to, and between two looks at the gradient of each module.
STATE_EVERY, NORMS_EVERY = 50, 20
# The scaler's own search for the largest scale that fits: not a fault of the run.
FIRST_SCALE = 2.0**12

Flags = tuple[bool, ...]
Frame = tuple[tuple[float, float, float], bool]


class Training:
    """A training run, step by step.

    Parameters
    ----------
    plan : NetworkPlan
        The architecture.
    objective : Objective
        The loss.
    patch : tuple of int
        Shape of a patch.
    settings : TrainingSettings
        Length, rates, seed.
    device : str
        "cpu" or "cuda".
    frame : tuple
        Voxel size along z, y, x in nm, and whether the first axis counts independent images.
    group : Group
        The processes that train together.
    precision : str, optional
        As chosen before; otherwise it is chosen now.

    Attributes
    ----------
    f, g : EmbeddingNetwork
        The network, and its moving average, which predicts.
    iteration : int
        Steps taken.
    pull : float
        Running mean of the pull term: how far the embeddings of single objects spread; infinite where nothing pulls.

    Notes
    -----
    Whatever a step draws follows from the seed and its number, so that `state` holds no generators. A step whose loss
    or gradient is not finite leaves no trace in weights, buffers or moments; see `Guard` for what follows.
    """

    def __init__(
        self,
        plan: NetworkPlan,
        objective: Objective,
        patch: Triple,
        settings: TrainingSettings,
        device: str,
        *,
        frame: Frame = ((1.0, 1.0, 1.0), False),
        group: Group | None = None,
        precision: str | None = None,
    ) -> None:
        self.frame, self._sections = frame, not (frame[1] or isotropic_axes(*frame)[0])
        self.objective, self.patch, self.settings, self.device = objective, patch, settings, device
        self.group = group or Group()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            network = EmbeddingNetwork(plan)
        network.activation_checkpointing = settings.activation_checkpointing
        network, shape = network.to(device), (settings.batch, plan.in_channels, *patch)
        wanted, layout = precision or settings.precision, settings.channels_last
        self.precision = self.group.agree(choose_precision(wanted, network, shape, device, layout))
        self._format = memory_format(layout, device, self.precision)
        network = network.to(memory_format=self._format)  # type: ignore[call-overload]
        self.f: Any = self.group.synchronised(network, device)
        self.g: Any = start_average(self.f)
        # Peak and momentum are set before every step.
        self.optimizer = torch.optim.AdamW(
            self.f.parameters(), lr=settings.learning_rate, weight_decay=1e-4, fused=True
        )
        self.scaler = torch.amp.GradScaler(device, init_scale=FIRST_SCALE, enabled=self.precision == "float16")
        self.guard, self.iteration, self._finite, self._loss_finite = Guard(), 0, True, True
        self.pull = 0.0 if settings.loss.pull else float("inf")
        self._forward = {id(n): torch.compile(n) if settings.compile else n for n in (self.f, self.g)}
        self._good = self._copy()

    def step(self, batch: Batch, flags: Flags = ()) -> tuple[dict[str, float], Flags]:
        """Take one optimiser step.

        Parameters
        ----------
        batch : Batch
            This process's crops.
        flags : tuple of bool
            What this process wants the others to know, as many as theirs.

        Returns
        -------
        values : dict
            Loss terms, the length of the gradient before it is clipped, now and then that of each module; `lost`
            instead of what is not finite.
        flags : tuple of bool
            Which of the flags any process gave.

        Raises
        ------
        TrainingError
            When steps stay lost; see `Guard`.
        """
        self.f.train()
        self.g.train()  # both views are normalised alike, by the statistics of their own patch
        buffers = [*self.f.buffers(), *self.g.buffers()]
        before = [buffer.clone() for buffer in buffers]
        terms = self._terms(batch)
        values, heard = self._descend(terms, flags)
        if self._finite:
            follow(self.g, self.f, min(self.settings.ema, (1 + self.iteration) / (10 + self.iteration)))
            self.guard.fine()
            # Over about fifty steps; without the weight that it has in the loss.
            weight = self.settings.loss.pull
            self.pull += 0.02 * (values.get("pull", self.pull * weight) / weight - self.pull) if weight else 0.0
        else:
            torch._foreach_copy_(buffers, before)
            self._lose(values)
            values = {name: value for name, value in values.items() if np.isfinite(value)} | {"lost": 1.0}
        self.iteration += 1
        if self._finite and self.iteration % STATE_EVERY == 0:
            self._good = self._copy()
        return values, heard

    def start_from(self, weights: dict[str, Tensor], weights_ema: dict[str, Tensor]) -> None:
        """Begin with the weights of another run, which lost steps then fall back to."""
        self.f.load_state_dict(weights)
        self.g.load_state_dict(weights_ema)
        self._good = self._copy()

    def state(self) -> dict[str, Any]:
        """Give everything that a continued run needs; tensors are not copied."""
        return {
            "iteration": self.iteration,
            "f": self.f.state_dict(),
            "g": self.g.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "guard": self.guard.state(),
            "precision": self.precision,
            "pull": self.pull,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self._restore(state)
        self.iteration, self.guard, self.pull = state["iteration"], Guard(**state["guard"]), state["pull"]
        self.scaler.load_state_dict(state["scaler"])
        self._good = self._copy()

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        """Give the weighted terms, averaged over the batch."""
        placed = (part.to(self.device, non_blocking=True) for part in (batch.raw, batch.labels.long()))
        raw, labels = self._warp(*placed)
        output, output_g = self._apply(self.f, self._view(raw, Purpose.VIEW_F)), None
        if self.settings.loss.consistency and self.iteration >= WARM_UP * self.settings.iterations:
            with torch.no_grad():
                output_g = self._apply(self.g, self._view(raw, Purpose.VIEW_G))
        sums: dict[str, Tensor] = {}
        for place, known in enumerate(labels):
            other = None if output_g is None else output_g[place]
            draws = self._generator(Purpose.ANCHORS, place)
            for name, value in self.objective(output[place], other, known, draws).items():
                sums[name] = sums.get(name, 0.0) + value / len(labels)
        return sums

    def _generator(self, purpose: Purpose, place: int = 0) -> torch.Generator:
        """Draws of a purpose for one place in the batch of this process, or for all of them."""
        first = self.group.rank * self.settings.batch
        return generator(self.settings.seed, self.iteration, purpose, first + place)

    def _warp(self, raw: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Move raw data and labels together, each crop in its own way."""
        views, (size_nm, planar) = self.settings.views, self.frame
        crops = zip(raw[:, None], labels[:, None], strict=True)
        pairs = [
            warp(x, known, views, size_nm, planar, self._generator(Purpose.WARP, place))
            for place, (x, known) in enumerate(crops)
        ]
        return torch.cat([x for x, _ in pairs]), torch.cat([known for _, known in pairs])

    def _view(self, raw: Tensor, purpose: Purpose) -> Tensor:
        """Change the intensity of each crop in its own way."""
        views = self.settings.views
        crops = enumerate(raw[:, None])
        return torch.cat([change_intensity(x, views, self._sections, self._generator(purpose, p)) for p, x in crops])

    def _apply(self, network: nn.Module, x: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            output: Tensor = self._forward[id(network)](x.contiguous(memory_format=self._format))
        return output

    def _descend(self, terms: dict[str, Tensor], flags: Flags) -> tuple[dict[str, float], Flags]:
        """Go down the gradient of all processes; notes in `_finite` whether that was possible."""
        self._set_rates()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.stack(list(terms.values())).sum() if terms else torch.zeros((), device=self.device)
        buffers = list(self.f.buffers())
        if terms:
            kept = [buffer.clone() for buffer in buffers] if self.settings.activation_checkpointing else None
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            if kept is not None:  # activations that were computed anew have entered the statistics a second time
                torch._foreach_copy_(buffers, kept)
        said = torch.tensor([float(bool(terms)), *map(float, flags)], device=self.device)
        # One process's infinite loss is everyone's.
        shared = torch.cat([loss.detach().reshape(1), said])
        gradients = self._gradients()
        self.group.average([*gradients, *(b for b in buffers if b.dtype.is_floating_point), shared])
        if gradients:
            self.scaler.unscale_(self.optimizer)
        norms = {"gradient_norm": get_total_norm(gradients).to(self.device)}
        if self.iteration % NORMS_EVERY == 0:
            norms |= {f"gradient_norm_{name}": value for name, value in module_norms(self.f).items()}
        named = {**{name: value.detach() for name, value in terms.items()}, **norms}
        numbers = torch.cat([shared, torch.stack(list(named.values()))]).tolist()
        total, busy, *heard = numbers[: len(shared)]
        values = dict(zip(named, numbers[len(shared) :], strict=True))
        self._loss_finite = bool(np.isfinite(total))
        self._finite = self._loss_finite and bool(np.isfinite(values["gradient_norm"]))
        if self._finite and busy:
            clip_grads_with_norm_(self.f.parameters(), GRADIENT_NORM, norms["gradient_norm"])
            self.scaler.step(self.optimizer)
        if gradients:
            self.scaler.update()
        return values, tuple(flag > 0 for flag in heard)

    def _gradients(self) -> list[Tensor]:
        """Gradients of all parameters; where other processes may have one, zeros stand for none."""
        parameters = list(self.f.parameters())
        if self.group.world > 1:
            for parameter in parameters:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    def _set_rates(self) -> None:
        part, momentum = one_cycle(self.iteration, self.settings.iterations)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * part * self.guard.factor
            group["betas"] = (momentum, 0.999)

    def _lose(self, values: dict[str, float]) -> None:
        culprits = [name for name, value in values.items() if not np.isfinite(value)]
        # By the loss that all processes share: they must decide alike.
        if self.scaler.is_enabled() and self.scaler.get_scale() > 1 and self._loss_finite:
            return  # the scaler has lowered its scale, which is all that was wrong
        rate = self.settings.learning_rate * self.guard.factor
        named = ", ".join(culprits) or "the loss of another process"
        if self.guard.lose(self.iteration + 1, named, rate, self.precision):
            self._restore(self._good)

    def _copy(self) -> dict[str, Any]:
        parts = {"f": self.f, "g": self.g, "optimizer": self.optimizer}
        return {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}

    def _restore(self, state: dict[str, Any]) -> None:
        self.f.load_state_dict(state["f"])
        self.g.load_state_dict(state["g"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
