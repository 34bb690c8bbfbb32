"""Networks cut into the parts that an encoder and a decoder run one after another."""
from collections.abc import Callable

import torch
from torch import nn


class Part(nn.Module):
    """A function of tensors, as a network that holds the layers it uses."""

    def __init__(self, run: Callable, *layers: nn.Module):
        super().__init__()
        self.run, self.layers = run, nn.ModuleList(layers)

    def forward(self, *inputs): return self.run(*inputs)


def cat() -> Part:
    """The part that joins maps along their channels."""
    return Part(lambda *maps: torch.cat(maps, 1))
