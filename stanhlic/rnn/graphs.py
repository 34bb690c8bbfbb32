"""The networks of a recurrent model one by one, in the order in which encoder and decoder run them; states go in and come out."""
from collections.abc import Callable

import torch

from ..parts import Part
from .model import scale_and_mean


def _empty(network, x) -> list:
    "States before the first layer: zeros, which a cell cannot tell from none"
    return [torch.zeros_like(t) for state in network(x)[1] for t in state]


def _step(network, run, name, x, states, given, names):
    "One layer of a recurrent network: its outputs; its states are changed"
    if not states: states += _empty(network, x)
    pairs = lambda flat: list(zip(flat[::2], flat[1::2]))
    labels = [f"{kind}{i + 1}" for i in range(len(states) // 2) for kind in "hc"]
    def layer(x, *flat):
        y, new = network(x, pairs(flat))
        return y, *(t for state in new for t in state)
    y, *states[:] = run(name, Part(layer, network), {given: x} | dict(zip(labels, states)), [names, *(f"{label}_next" for label in labels)])
    return y


def walk(
    codec,            # an `RnnCodec`
    x: torch.Tensor,  # picture [1, 3, H, W], sides multiples of 64
    run: Callable,    # (name, network, inputs by name, names of its outputs) -> outputs; what is told of every network
    code: Callable,   # (part, mean, scale, value) -> value; what is told of everything coded: z and y of each layer in turn
) -> None:
    """Send a picture through two layers."""
    model, hyper = codec.model, codec.model.config.hyperprior
    x_hat, states = torch.full_like(x, 0.5), {n: [] for n in ("encoder", "decoder", "hyper_encoder", "hyper_decoder")}
    one = lambda name, network, x, given, names: _step(network, run, name, x, states[name], given, names)
    for k in range(min(2, model.config.layers)):
        y, medians, scale, mean = one("encoder", model.enc, x - x_hat, "residual", "y"), model.eb[k].medians(), None, None
        if hyper:
            z = one("hyper_encoder", model.henc, y, "y", "z")
            scale, mean = scale_and_mean(one("hyper_decoder", model.hdec, code(2 * k, medians, None, torch.round(z - medians) + medians), "z_hat", "parameters"), model.config)
        else: mean = medians
        y_hat = code(k + hyper * (k + 1), mean, scale, torch.round(y - mean) + mean)
        x_hat = x_hat + one("decoder", model.dec, y_hat, "y_hat", "correction")


def beside(codec, write: Callable) -> dict:
    """For `model.json`: medians of each layer's prior, about which z, or without hyperprior y, is rounded."""
    return {"layers": codec.layers, "medians": [prior.medians().flatten().tolist() for prior in codec.model.eb]}
