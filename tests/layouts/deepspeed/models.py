"""The tiny models that the fixtures are trained with."""

from __future__ import annotations

import torch


def model_of(kind: str) -> torch.nn.Module:
    """A new model of one kind."""
    if kind == "pipeline":
        from deepspeed.pipe import PipelineModule

        return PipelineModule([torch.nn.Linear(5, 6), torch.nn.Linear(6, 3)], num_stages=2, loss_fn=squared)
    if kind in ("experts", "copies"):
        return WithExperts(2 if kind == "experts" else 1)
    if kind == "shares":
        return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    # BatchNorm's statistics stay float32.
    between = torch.nn.Tanh() if kind == "plain" else torch.nn.BatchNorm1d(6)
    model = torch.nn.Sequential(torch.nn.Linear(5, 6), between, torch.nn.Linear(6, 3))
    if kind == "frozen":
        model[0].requires_grad_(False)
    return model


def squared(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (output - target).pow(2).mean()


class WithExperts(torch.nn.Module):
    """A linear layer and two experts, divided among some ranks."""

    def __init__(self, ranks: int) -> None:
        from deepspeed.moe.layer import MoE

        super().__init__()
        self.first = torch.nn.Linear(5, 6)
        self.experts = MoE(6, torch.nn.Linear(6, 6), num_experts=2, ep_size=ranks, k=1, min_capacity=0)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.experts(self.first(batch))[0]


class Megatrons:
    """The interface of Megatron's `mpu`: two ranks share a model, of which the others are copies."""

    def __init__(self) -> None:
        world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        self.rank, self.size = rank, world
        for first in range(0, world, 2):
            group = torch.distributed.new_group([first, first + 1])
            if first <= rank < first + 2:
                self.model_group = group
        for first in (0, 1):
            group = torch.distributed.new_group(range(first, world, 2))
            if rank % 2 == first:
                self.data_group = group

    def get_model_parallel_rank(self) -> int:
        return self.rank % 2

    def get_model_parallel_world_size(self) -> int:
        return 2

    def get_model_parallel_group(self) -> object:
        return self.model_group

    def get_data_parallel_rank(self) -> int:
        return self.rank // 2

    def get_data_parallel_world_size(self) -> int:
        return self.size // 2

    def get_data_parallel_group(self) -> object:
        return self.data_group
