"""Networks cut into the parts that an encoder and a decoder run one after another."""
from collections.abc import Callable

import torch
from torch import nn

from .lean import Lean, SliceNetwork, checkerboard, merge
from .priors import SCALE_MIN


class Part(nn.Module):
    """A function of tensors, as a network that holds the layers it uses."""

    def __init__(self, run: Callable, *layers: nn.Module):
        super().__init__()
        self.run, self.layers = run, nn.ModuleList(layers)

    def forward(self, *inputs): return self.run(*inputs)


def cat() -> Part:
    """The part that joins maps along their channels."""
    return Part(lambda *maps: torch.cat(maps, 1))


def _scaled(parameters, size):
    "Mean and scale from what a slice network says in units"
    mean, scale = parameters.chunk(2, 1)
    return mean * size, (scale * size).clamp(min=SCALE_MIN)


def _black(s: SliceNetwork, size) -> Part:
    "What is known → hidden maps, mean and scale of the black fields"
    def run(*known):
        h = s._first(*known)
        return h, *_scaled(s.black(checkerboard(h)[0]), size)
    return Part(run, s.gather, s.mix, s.black)


def _white(s: SliceNetwork, size) -> Part:
    "Hidden maps and the black fields → hidden maps, mean and scale of the white fields"
    def run(h, black):
        h = s._second(h, black / size)
        return h, *_scaled(s.white(checkerboard(h)[1]), size)
    return Part(run, s.near, s.white)


def _whole(s: SliceNetwork, size) -> Part:
    "Hidden maps and both fields → the slice in units, for the slices behind it, and the corrected slice"
    def run(h, black, white, step):
        y = merge(black, white) / size
        return y, y * size + step * 0.5 * torch.tanh(s.correct(torch.cat([h, y], 1)))
    return Part(run, s.correct)


def walk_lean(
    net: Lean,
    z_hat: torch.Tensor,  # decoded side information [1, N, H/64, W/64]
    step: torch.Tensor,   # Δ of the quantizer, a number
    run: Callable,        # (name, network, inputs by name, names of its outputs) -> outputs
    code: Callable,       # (part, mean, scale) -> value
) -> torch.Tensor:        # ŷ [1, M, H/16, W/16]
    """The walk of `Lean.latents`, one network after another."""
    known, done = dict(feature=run("hyper_synthesis", net.h_s, dict(z_hat=z_hat), ["feature"])[0]), {}
    for i, (s, size) in enumerate(zip(net.slices, net.h_a[0].size.split(net.config.widths))):
        h, mean, scale = run(f"slice{i}_black", _black(s, size), known, [f"hidden{i}_black", f"mean{2 * i}", f"scale{2 * i}"])
        black = code(2 * i, mean, scale)
        h, mean, scale = run(f"slice{i}_white", _white(s, size), {f"hidden{i}_black": h, f"value{2 * i}": black}, [f"hidden{i}", f"mean{2 * i + 1}", f"scale{2 * i + 1}"])
        white = code(2 * i + 1, mean, scale)
        known[f"known{i}"], done[f"slice{i}"] = run(f"slice{i}_whole", _whole(s, size), {f"hidden{i}": h, f"value{2 * i}": black, f"value{2 * i + 1}": white, "step": step}, [f"known{i}", f"slice{i}"])
    return run("join", cat(), done, ["y_hat"])[0]
