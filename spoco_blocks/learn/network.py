"""The embedding network: a residual 3D U-Net that knows its own strides and receptive field."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from spoco_blocks.grid import Triple, triple
from spoco_blocks.learn.network_plan import NetworkPlan

# Up to this many numbers in a batch of one (without the last axis) PyTorch leaves float32 convolutions on a CPU to code
# that is three times slower than oneDNN's; it does not do so with a batch of two.
SLOW = 20480


class _Convolution(nn.Conv3d):
    """A convolution that, in training, does not fall into PyTorch's slow path for small single patches on a CPU.

    Prediction takes one path for all shapes: which one must not be seen in the digits of blocks and the whole.
    """

    def forward(self, x: Tensor) -> Tensor:
        n, channels, z, y, _ = x.shape
        small = n == 1 and channels * z * y <= SLOW and z % 2 == 0
        if not (self.training and small and x.device.type == "cpu") or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        reach, half = self.kernel_size[0] // 2, z // 2
        padded = functional.pad(x, (0, 0, 0, 0, reach, reach))
        halves = torch.cat([padded[:, :, : half + 2 * reach], padded[:, :, half:]])
        in_plane = [k // 2 for k in self.kernel_size[1:]]
        done = functional.conv3d(halves, self.weight, self.bias, padding=(0, *in_plane))
        return torch.cat(done.chunk(2), 2)


class _Residual(nn.Module):
    """Two normalised convolutions, the second one around a shortcut."""

    def __init__(self, inputs: int, outputs: int, kernel: Triple) -> None:
        super().__init__()
        padding = triple(k // 2 for k in kernel)
        self.first = _Convolution(inputs, outputs, kernel, padding=padding, bias=False)
        self.first_norm = nn.BatchNorm3d(outputs)
        self.second = _Convolution(outputs, outputs, kernel, padding=padding, bias=False)
        self.second_norm = nn.BatchNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(y + self.second_norm(self.second(y)))


class EmbeddingNetwork(nn.Module):
    """Maps raw voxels to embeddings, a foreground logit and affinity logits.

    Parameters
    ----------
    plan : NetworkPlan
        The architecture.

    Notes
    -----
    BatchNorm and nothing else: in evaluation mode it does not depend on the patch, so that blockwise prediction equals
    prediction of the whole volume (group and instance normalisation never do). Levels are added, not concatenated: the
    convolutions after a concatenation would take more than half of the time.
    """

    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__()
        self.plan = plan
        inputs = (plan.in_channels, *plan.widths[:-1])
        self.down = nn.ModuleList(_Residual(i, o, k) for i, o, k in zip(inputs, plan.widths, plan.kernels, strict=True))
        levels = range(len(plan.pools))
        self.narrow = nn.ModuleList(nn.Conv3d(plan.widths[level + 1], plan.widths[level], 1) for level in levels)
        self.up = nn.ModuleList(
            _Residual(plan.widths[level], plan.widths[level], plan.kernels[level]) for level in levels
        )
        self.head = nn.Conv3d(plan.widths[0], plan.outputs, 1)
        self.activation_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, channels, z, y, x), a multiple of the stride, to (n, plan.outputs, z, y, x)."""
        skips = []
        for level, stage in enumerate(self.down):
            x = self._run(stage, x)
            if level < len(self.plan.pools):
                skips.append(x)
                x = functional.max_pool3d(x, self.plan.pools[level])
        for level in reversed(range(len(self.plan.pools))):
            x = functional.interpolate(self.narrow[level](x), size=skips[level].shape[2:], mode="nearest")
            x = self._run(self.up[level], skips[level] + x)
        return self.head(x)  # type: ignore[no-any-return]

    def _run(self, stage: nn.Module, x: Tensor) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(stage, x, use_reentrant=False)  # type: ignore[no-any-return]
        return stage(x)  # type: ignore[no-any-return]
