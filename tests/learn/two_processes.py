"""What test_train_distributed.py runs in several processes: steps with and without BatchNorm's statistics."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from runs import broken, loader, steps, training

from spoco_blocks.learn.distributed import Group, process_group
from spoco_blocks.learn.loader import Batch


def freeze(run) -> None:
    """Let normalisation use its running statistics."""
    for network in (run.f, run.g):
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm3d):
                module.eval()
                module.train = lambda mode=True, module=module: module


def frozen_step(folder: Path, group: Group, batch: int) -> dict[str, object]:
    """Take a step with consistency whose gradient is that of the whole batch."""
    run = training(4, group=group, batch=batch)
    freeze(run)
    run.iteration = 2
    steps(run, loader(folder, batch, group.rank, group.world), 3)
    gradient = torch.cat([p.grad.reshape(-1) for p in run.f.parameters()])
    return {"gradient": gradient, "f": run.f.state_dict()}


def uneven_steps(folder: Path, group: Group) -> dict[str, object]:
    """Train where one process meets a broken crop, then one with nothing known, then all do; then two good ones."""
    run = training(8, group=group)
    batches = list(loader(folder, 1, group.rank, group.world).batches(0, 8))
    empty = [Batch(batch.raw, torch.zeros_like(batch.labels)) for batch in batches]
    last = group.rank == group.world - 1
    values = [
        run.step(batches[0], (group.rank == 0, False)),
        run.step(broken(batches[1]) if last else batches[1], (False, last)),
        run.step(empty[2] if last else batches[2], (False, False)),
        run.step(empty[3], (False, False)),
        run.step(batches[4], (True, True)),
    ]
    lost = ["lost" in row for row, _ in values]
    return {"state": run.state(), "lost": lost, "flags": [flags for _, flags in values]}


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    with process_group() as group:
        found = {"frozen": frozen_step(folder, group, 2 // group.world), "uneven": uneven_steps(folder, group)}
        found["agreed"] = group.agree(f"from {group.rank}")
        torch.save(found, folder / f"{group.world}-{group.rank}.pt")
