"""The networks of a recurrent model one by one, in the order in which encoder and decoder run them; states go in and come out."""
from collections.abc import Callable

import torch

from ..parts import Part
from .lean import knowledge
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
    kept = labels[:len(_empty(network, x))]  # what a lean hyper-decoder knows of the layer before is no state of its own
    y, *states[:] = run(name, Part(layer, network), {given: x} | dict(zip(labels, states)), [names, *(f"{label}_next" for label in kept)])
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
        y, medians = one("encoder", model.enc, x - x_hat, "residual", "y") / model.step(k), model.eb[k].medians()
        if hyper:
            z = one("hyper_encoder", model.henc, y / model.unit(k), "y", "z")
            scale, mean = _predict(codec, k, one, states, code(2 * k, medians, None, torch.round(z - medians) + medians))
        else: scale, mean = None, medians
        v = torch.round(y - mean)
        y_hat = code(k + hyper * (k + 1), mean, scale, v + mean)
        if model.config.lean and hyper: states["hyper_decoder"] += run("known", Part(knowledge), {"symbols": v, "scale": scale}, ["h3_next", "c3_next"])
        x_hat = x_hat + one("decoder", model.dec, y_hat * model.step(k), "y_hat", "correction")


def _predict(codec, k, one, states, z_hat):
    "σ and μ of y in layer k"
    model, own, (h, w) = codec.model, states["hyper_decoder"], z_hat.shape[-2:]
    spread = model.spread(k, own and [own[-2:]], z_hat)
    if model.config.lean and not own: own += [*_empty(model.hdec, z_hat), *(z_hat.new_zeros(1, model.config.latent, 4 * h, 4 * w) for _ in "hc")]
    return scale_and_mean(one("hyper_decoder", model.hdec, z_hat, "z_hat", "parameters"), model.config, spread)


def beside(codec, write: Callable) -> dict:
    """For `model.json`: medians of each layer's prior, about which z, or without hyperprior y, is rounded; of a lean model, steps and units of each layer, from which scales follow as `RnnHyper.spread` says."""
    model, numbers = codec.model, lambda t: t.flatten().tolist()
    told = {"layers": codec.layers, "medians": [numbers(prior.medians()) for prior in model.eb]}
    if not model.config.lean: return told
    return told | {name: [numbers(of(k)) for k in range(codec.layers)] for name, of in (("steps", model.step), ("units", model.unit))}
