"""What follows a step whose loss or gradient was not finite."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from spoco_blocks.errors import TrainingError

IN_A_ROW = 5
ATTEMPTS = 3


@dataclass
class Guard:
    """Counts lost steps: some are harmless, several in a row mean that the weights are too far gone.

    Attributes
    ----------
    lost : int
        Lost steps in the whole run.
    row : int
        Lost steps in a row.
    recoveries : int
        How often the learning rate was halved and an earlier state restored.
    """

    lost: int = 0
    row: int = 0
    recoveries: int = 0

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied with."""
        return 0.5**self.recoveries

    def fine(self) -> None:
        """Note a step that was taken."""
        self.row = 0

    def lose(self, iteration: int, culprits: str, rate: float, precision: str) -> bool:
        """Note a lost step; true when an earlier state has to be restored and the rate was halved.

        Parameters
        ----------
        iteration : int
            The step that was lost.
        culprits : str
            What was not finite.
        rate : float
            Peak learning rate as it is now.
        precision : str
            What convolutions are computed in.

        Raises
        ------
        TrainingError
            When it did not help before.
        """
        self.lost += 1
        self.row += 1
        if self.row < IN_A_ROW:
            return False
        self.row = 0
        self.recoveries += 1
        if self.recoveries < ATTEMPTS:
            return True
        other = "" if precision == "float32" else f", set training.precision to float32 (it is {precision})"
        raise TrainingError(
            f"iteration {iteration}: not finite: {culprits}, in {IN_A_ROW} steps in a row, and so again after the "
            f"learning rate was halved {ATTEMPTS - 1} times from the last good state. Lower training.learning_rate "
            f"(it is down to {rate:.2g}){other}, and look for extreme values in the raw data."
        )

    def state(self) -> dict[str, Any]:
        """Give what a continued run needs."""
        return asdict(self)


def module_norms(network: nn.Module) -> dict[str, Tensor]:
    """Give the length of the gradient of each top-level module that has one."""
    norms = {}
    for name, module in network.named_children():
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        if gradients:
            norms[name] = get_total_norm(gradients)
    return norms
