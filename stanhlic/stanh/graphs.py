"""The networks of a STanH model one by one, in the order in which encoder and decoder run them."""
import gzip
from collections.abc import Callable
from itertools import groupby

import numpy as np
import torch

from ..backbone import Sliced
from ..codec import MULTIPLE
from ..errors import StanhlicError
from ..lean import Lean
from ..parts import Part, cat, walk_lean
from ..priors import SCALE_LEVELS, SCALE_MIN, scale_table
from ..strips import reach
from .codec import place, tables_at
from .file import STEPS
from .model import shifted


def _walk_sliced(net: Sliced, z_hat, step, run, code):
    mean_feature, scale_feature = run("hyper_synthesis", Part(lambda z: (net.h_mean_s(z), net.h_scale_s(z)), net.h_mean_s, net.h_scale_s), dict(z_hat=z_hat), ["mean_feature", "scale_feature"])
    done = {}
    for i, (cc_mean, cc_scale, lrp) in enumerate(zip(net.cc_mean_transforms, net.cc_scale_transforms, net.lrp_transforms)):
        support = dict(list(done.items())[:net.config.support])
        predict = Part(lambda m, s, *known, a=cc_mean, b=cc_scale: (a(torch.cat([m, *known], 1)), b(torch.cat([s, *known], 1)).clamp(min=SCALE_MIN)), cc_mean, cc_scale)
        mean, scale = run(f"slice{i}", predict, dict(mean_feature=mean_feature, scale_feature=scale_feature, **support), [f"mean{i}", f"scale{i}"])
        value = code(i, mean, scale)
        correct = Part(lambda v, *means, a=lrp: v + 0.5 * torch.tanh(a(torch.cat([*means, v], 1))), lrp)
        done[f"slice{i}"], = run(f"slice{i}_whole", correct, {f"value{i}": value, "mean_feature": mean_feature, **support}, [f"slice{i}"])
    return run("join", cat(), done, ["y_hat"])[0]


def _nearest(quantizer, v, extend): return quantizer.dequantize(quantizer.index(v, extend))


def walk(
    codec,          # a `StanhCodec`
    x: torch.Tensor,  # picture [1, 3, H, W], sides multiples of 64
    run: Callable,  # (name, network, inputs by name, names of its outputs) -> outputs; what is told of every network
    code: Callable, # (part, mean, scale, value) -> value; what is told of everything coded
) -> None:
    """Send a picture through every network, of each anchor in turn. Raises `StanhlicError` for networks that were plugged in."""
    model, several = codec.model, len(codec.model.anchors) > 1
    for number, net in enumerate(model.anchors):
        walk_latents = walk_lean if isinstance(net, Lean) else _walk_sliced if isinstance(net, Sliced) else None
        if walk_latents is None: raise StanhlicError(f"{codec.name} has networks of another package plugged in; export those with that package")
        n = next(n for n in range(codec.last() + 1) if model.points[n // STEPS].anchor == number)
        _, qy, qz, *_ = codec.at(n)
        tell = lambda name, *rest, before=f"anchor{number}_" * several: run(before + name, *rest)
        y, = tell("analysis", net.g_a, dict(x=x), ["y"])
        z, = tell("hyper_analysis", net.h_a, dict(y=y), ["z"])
        medians = shifted(net.entropy_bottleneck)[1] if codec.extend else 0.0
        quantized = lambda i, mean, scale, y=y, net=net, q=qy: code(i, mean, scale, _nearest(q, net.part(y, i) - mean, codec.extend) + mean)
        y_hat = walk_latents(net, _nearest(qz, z - medians, codec.extend) + medians, torch.tensor(qy.step), tell, quantized)
        tell("synthesis", net.g_s, dict(y_hat=y_hat), ["picture"])


# %% what a decoder needs besides

BLOCK = 64  # positions of the dial whose tables share a file


def pack_tables(
    tables: list,  # of integers [n], one for each of some neighboring positions
) -> bytes:
    """Tables of a block: the first, how the second differs from it, then second differences; each as four planes of bytes, lowest first, in gzip."""
    t = np.stack(tables).astype(np.int64)
    t = np.concatenate([t[:1], t[1:2] - t[:1], np.diff(t, 2, axis=0)])
    folded = ((t << 1) ^ (t >> 63)).astype("<u4")
    return gzip.compress(folded.view(np.uint8).reshape(*folded.shape, 4).transpose(0, 2, 1).tobytes(), 9, mtime=0)


def short(values: torch.Tensor) -> list:
    """Numbers of single precision in as few digits as tell them apart."""
    return [float(str(v)) for v in values.detach().numpy()]


def _stairs(quantizer):
    "What turns an index into a value"
    s = quantizer.staircase()
    return {"levels": short(s.levels), "ends": short(s.jumps[[0, -1]]), "step": s.step}


def _shapes(model, n):
    "Of the tables of y and z at a position"
    p = model.points[model.settled(place(n)).level]
    return (SCALE_LEVELS, p.y.num_levels + 1), (model.anchors[p.anchor].config.width, p.z.num_levels + 1)


def _about(net, codec):
    "An anchor: channels of z, its medians, elements of each part at 16 positions, how far synthesis reaches on either side of a cut, and where cuts are"
    step = getattr(net.g_s, "cut", MULTIPLE) // 16
    medians = shifted(net.entropy_bottleneck)[1].flatten() if codec.extend else torch.zeros(net.config.width)
    return {"medians": short(medians), "parts": net.sizes(4, 4), "latent": net.config.latent, "reach": -(-reach(net.g_s, net.config.latent, step) // step) * step, "step": step}


def beside(
    codec,            # a `StanhCodec`
    write: Callable,  # called with name and bytes of each file
) -> dict:            # for `model.json`
    """Levels of each rate point, the scales, medians, and the integer tables of every position of the dial."""
    model, blocks = codec.model, []
    for (_, y, z), found in groupby(range(codec.last() + 1), lambda n: (n // BLOCK, *_shapes(model, n))):
        positions = list(found)
        blocks.append({"file": f"tables{positions[0]}.bin", "first": positions[0], "count": len(positions), "y": y, "z": z})
        write(blocks[-1]["file"], pack_tables([np.concatenate([t.freq.ravel() for t in tables_at(model, place(n))[3:]]) for n in positions]))
    points = [{"anchor": p.anchor, "y": _stairs(p.y), "z": _stairs(p.z)} for p in model.points]
    return {"points": points, "anchors": [_about(net, codec) for net in model.anchors], "interpolate_z": model.forms.interpolate_z, "scales": scale_table().tolist(), "tables": blocks}
