"""One run on several processes: `torchrun` starts the same command, each process takes its part of every batch."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from emseg.models.network import Network


@dataclass(frozen=True)
class Ranks:
    """The processes of a run; alone it is rank 0 of 1, and everything here does nothing.

    Rank 0 writes the record, validates and decides; the others follow.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, validates and decides."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """This rank's part of `count` examples; `size` must divide `count`."""
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)

    def training_logits(self, network: Network) -> Callable[[torch.Tensor], list[torch.Tensor]]:
        """`network.training_logits`, with batch statistics of the whole batch and gradients averaged over ranks.

        Keep the result until training ends: gradients are averaged as long as it lives.
        """
        if self.size == 1:
            return network.training_logits
        if next(network.parameters()).is_cuda:
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        else:
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.__class__ = _SharedBatchNorm
        return DistributedDataParallel(_TrainingLogits(network))

    def share(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Sum of `values` over ranks; gradients flow back to every rank."""
        return values if self.size == 1 else _Total.apply(values)

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean of `values` over ranks."""
        if self.size > 1:
            distributed.all_reduce(values)
            values /= self.size
        return values


class _Total(torch.autograd.Function):
    """Sum over ranks. Every rank's loss depends on it, so the gradient is summed over ranks too."""

    @staticmethod
    def forward(context: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _Total.forward(context, gradients[0])


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by mean and variance over all ranks; PyTorch has it for GPUs alone."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        values = input.float()
        count = values.numel() // values.shape[1] * distributed.get_world_size()
        mean = _Total.apply(values.sum(dim=(0, 2, 3))) / count
        centred = values - mean[:, None, None]
        variance = _Total.apply(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            momentum = cast(float, self.momentum)
            self.get_buffer("running_mean").lerp_(mean, momentum)
            self.get_buffer("running_var").lerp_(variance * (count / (count - 1)), momentum)
            self.get_buffer("num_batches_tracked").add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


class _TrainingLogits(nn.Module):
    # Gradients are averaged only where the wrapped module is called as a whole.
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return self.network.training_logits(images)


@contextmanager
def join_ranks(device: torch.device) -> Iterator[Ranks]:
    """The processes that `torchrun` started, or this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    if device.type == "cuda":
        # What `share` broadcasts travels over the current GPU, which is GPU 0 on every rank unless set.
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(distributed.get_rank(), size)
    except BaseException:
        atexit.register(_leave)
        raise
    distributed.destroy_process_group()


def _leave() -> None:
    """End this process at once: an orderly end may wait for processes that wait for this one.

    `torchrun` stops those as soon as this one is gone.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
