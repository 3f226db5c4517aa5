"""The optimisers of a recipe, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from emseg.settings import RecipeSettings


def make_optimizer(network: nn.Module, recipe: RecipeSettings) -> torch.optim.Optimizer | MuonAndAdamW:
    """The recipe's optimiser of all weights of `network`, which must be on its device already."""
    options: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "muon":
        return MuonAndAdamW(network.parameters(), **options)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(network.parameters(), fused=True, **options)


class MuonAndAdamW:
    """Muon (Jordan et al. 2024) for the kernels of convolutions, AdamW for everything else.

    Muon makes the momentum of a matrix orthogonal before it steps, so that all directions of a layer learn at one
    rate. A kernel's matrix has a row for each channel of its first axis. Steps are scaled to the size of AdamW's
    (Liu et al. 2025), so one learning rate serves both. Kernels from or to a single channel have no directions to
    balance and are left to AdamW. PyTorch's Muon multiplies matrices in bfloat16 on every device, so runs on several
    processes agree with one process only roughly.

    Args:
        parameters: of the network; their storage must not be replaced afterwards.
        lr: learning rate of both.
        weight_decay: of both, decoupled.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        self._kernels: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for weight in parameters:
            (self._kernels if weight.ndim == 4 and min(weight.shape[:2]) > 1 else others).append(weight)
        # PyTorch's Muon takes matrices only; these share their memory with the kernels.
        self._matrices = [nn.Parameter(_matrix(kernel.detach(), kernel)) for kernel in self._kernels]
        self._muon = torch.optim.Muon(self._matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")
        self._adamw = torch.optim.AdamW(others, lr=lr, weight_decay=weight_decay, fused=True)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Of both optimisers, whose learning rates may be set."""
        return [*self._muon.param_groups, *self._adamw.param_groups]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for kernel in self._kernels:
            kernel.grad = None
        self._adamw.zero_grad()

    def step(self) -> None:
        """Step by the gradients that are there."""
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            matrix.grad = None if kernel.grad is None else _matrix(kernel.grad, kernel)
        self._muon.step()
        self._adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of both."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state of `state_dict`."""
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])


def _matrix(values: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """`values` as (first axis, all others), in the order in which `kernel` lies in memory."""
    if not kernel.is_contiguous():
        values = values.permute(0, 2, 3, 1)
    return values.reshape(len(values), -1)
