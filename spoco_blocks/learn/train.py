"""Training: the network f by gradient descent, the network g as its moving average."""

from __future__ import annotations

import copy
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spoco_blocks.errors import TrainingError
from spoco_blocks.grid import Triple
from spoco_blocks.learn.crops import Part, fit_patch
from spoco_blocks.learn.intensity_views import change_intensity
from spoco_blocks.learn.network import EmbeddingNetwork, NetworkPlan
from spoco_blocks.learn.objective import Objective
from spoco_blocks.learn.views import isotropic_axes, turn, warp
from spoco_blocks.settings.sections import TrainingSettings

# Part of the run before the consistency term sets in: at first g is noise.
WARM_UP = 0.1
GRADIENT_NORM = 5.0
STEPS_LOST_AT_MOST = 20
VALIDATION_CROPS = 8
# bfloat16 must win by this much, so that noise in the timing does not choose.
CLEARLY_FASTER = 1.1


class Training:
    """A training run.

    Parameters
    ----------
    parts : list of Part
        Where patches come from, each volume equally often.
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
    """

    def __init__(
        self,
        parts: list[Part],
        plan: NetworkPlan,
        objective: Objective,
        patch: Triple,
        settings: TrainingSettings,
        device: str,
    ) -> None:
        self.parts, self.objective, self.patch = parts, objective, patch
        self.settings, self.device = settings, device
        self.voxel_size_nm, self.planar = parts[0].voxel_size_nm, parts[0].volume.raw.meta.independent_images
        self.sections = not (self.planar or isotropic_axes(self.voxel_size_nm, self.planar)[0])
        torch.manual_seed(settings.seed)
        self.rng = np.random.default_rng(settings.seed)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.f = EmbeddingNetwork(plan).to(device)
        self.g = copy.deepcopy(self.f).requires_grad_(False)
        for module in self.g.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.momentum = 0.0  # its buffers average those of f and nothing else
        self.optimizer = torch.optim.AdamW(self.f.parameters(), lr=settings.learning_rate, weight_decay=1e-4)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer, settings.learning_rate, total_steps=settings.iterations, pct_start=0.15
        )
        self.iteration = 0
        self._lost = 0
        self.bfloat16 = self._choose_precision()

    def step(self) -> dict[str, float]:
        """Take one optimiser step and give its loss terms.

        Raises
        ------
        TrainingError
            When the gradients stay infinite.
        """
        self.f.train()
        drawn = [self._draw() for _ in range(self.settings.batch)]
        labels = torch.stack([torch.from_numpy(lab.astype(np.int64)) for _, lab in drawn]).to(self.device)
        raw = torch.stack([torch.from_numpy(raw) for raw, _ in drawn]).to(self.device)
        raw, labels = warp(raw, labels, self.settings.views, self.voxel_size_nm, self.planar, self.generator)
        output = self._forward(self.f, self._view(raw))
        output_g = None
        if self.settings.loss.consistency and self.iteration >= WARM_UP * self.settings.iterations:
            self.g.train()  # both views are normalised alike, by the statistics of their own patch
            with torch.no_grad():
                output_g = self._forward(self.g, self._view(raw))
        terms = self._mean_terms(output, output_g, labels)
        norm = self._descend(terms)
        self._average()
        self.iteration += 1
        return {**{name: float(value.detach()) for name, value in terms.items()}, "gradient_norm": norm}

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Give g's loss terms on fixed crops of the validation parts, without consistency; empty without such parts."""
        parts = [part for part in self.parts if part.validation is not None]
        if not parts:
            return {}
        rng, total = np.random.default_rng(0), dict[str, list[float]]()
        self.g.eval()
        for index in range(VALIDATION_CROPS):
            part = parts[index % len(parts)]
            assert part.validation is not None
            shape = fit_patch(self.patch, self.f.plan.stride, part.validation)
            raw, labels = part.volume.read(part.volume.draw(shape, 0.0, rng, part.validation))
            output = self._forward(self.g, torch.from_numpy(raw)[None].to(self.device))[0]
            known = torch.from_numpy(labels.astype(np.int64)).to(self.device)
            terms = self.objective(output, None, known, self.generator)
            for name, value in terms.items():
                total.setdefault(name, []).append(float(value))
        return {name: float(np.mean(values)) for name, values in total.items()}

    def _draw(self) -> tuple[Any, Any]:
        part = self.parts[int(self.rng.integers(len(self.parts)))]
        box = part.volume.draw(self.patch, self.settings.object_patch_fraction, self.rng, part.training)
        return turn(*part.volume.read(box), part.isotropic, self.rng)

    def _view(self, raw: Tensor) -> Tensor:
        return change_intensity(raw, self.settings.views, self.sections, self.generator)

    def _forward(self, network: nn.Module, x: Tensor) -> Tensor:
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.bfloat16):
            return network(x)  # type: ignore[no-any-return]

    def _mean_terms(self, output: Tensor, output_g: Tensor | None, labels: Tensor) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for index, lab in enumerate(labels):
            other = None if output_g is None else output_g[index]
            for name, value in self.objective(output[index], other, lab, self.generator).items():
                sums[name] = sums.get(name, output.new_zeros(())) + value / len(labels)
        return sums

    def _descend(self, terms: dict[str, Tensor]) -> float:
        if not terms:
            self.schedule.step()
            return 0.0
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.f.parameters(), GRADIENT_NORM)
        if torch.isfinite(norm):
            self._lost = 0
            self.optimizer.step()
        else:
            self._lost += 1
            if self._lost > STEPS_LOST_AT_MOST:
                raise TrainingError(
                    f"the gradients were not finite in {self._lost} steps in a row (iteration {self.iteration}); lower "
                    "training.learning_rate, or set training.precision to float32."
                )
        self.schedule.step()
        return float(norm)

    @torch.no_grad()
    def _average(self) -> None:
        momentum = min(self.settings.ema, (1 + self.iteration) / (10 + self.iteration))
        for weight, theirs in zip(self.g.parameters(), self.f.parameters(), strict=True):
            weight.lerp_(theirs, 1 - momentum)
        for buffer, target in zip(self.g.buffers(), self.f.buffers(), strict=True):
            if buffer.dtype.is_floating_point:
                buffer.lerp_(target, 1 - momentum)

    def _choose_precision(self) -> bool:
        if self.settings.precision != "auto":
            return self.settings.precision == "bfloat16"
        if self.device != "cpu":
            return bool(torch.cuda.is_bf16_supported())
        probe = copy.deepcopy(self.f)
        x = torch.zeros(1, self.f.plan.in_channels, *self.patch)
        seconds = {use: min(_time_step(probe, x, use) for _ in range(3)) for use in (False, True)}
        return seconds[True] * CLEARLY_FASTER < seconds[False]


def _time_step(network: nn.Module, x: Tensor, bfloat16: bool) -> float:
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
        loss = network(x).float().pow(2).mean()
    loss.backward()
    return time.perf_counter() - start
