"""The networks of a progressive model one by one, in the order in which encoder and decoder run them."""
from collections.abc import Callable

import torch

from ..parts import Part, cat, walk_lean
from ..priors import SCALE_MIN
from .lean import LeanNetworks, halved, posterior
from .networks import Networks


def _rounded(v, mean, step=1.0):
    "The value that comes out of the coder"
    return torch.round((v - mean) / step) * step + mean


def _hyper(nets: Networks, level: int) -> Part:
    "ẑ → mean and scale features of a level"
    pick = lambda part: part if nets.config.hypers == 1 else part[level]
    return Part(lambda z: nets.hyper(z, level), pick(nets.h_mean_s), pick(nets.h_scale_s))


def _correction(lrp) -> Part:
    "A quantized slice, and what it was predicted from → the corrected slice"
    return Part(lambda v, *means: v + 0.5 * torch.tanh(lrp(torch.cat([*means, v], 1))), lrp)


def _base(nets, z_hat, y, run, code):
    "The slices of the base, and the parameters that predicted them, by name"
    mean_feature, scale_feature = run("hyper_base", _hyper(nets, 0), dict(z_hat=z_hat), ["mean_feature", "scale_feature"])
    done, params = {}, {}
    for i, (cc_mean, cc_scale, lrp) in enumerate(zip(nets.cc_mean_transforms, nets.cc_scale_transforms, nets.lrp_transforms)):
        support = dict(list(done.items())[:nets.config.level.support])
        predict = Part(lambda m, s, *known, a=cc_mean, b=cc_scale: (a(torch.cat([m, *known], 1)), b(torch.cat([s, *known], 1))), cc_mean, cc_scale)
        params[f"mean{i}"], params[f"scale{i}"] = mean, scale = run(f"base{i}", predict, dict(mean_feature=mean_feature, scale_feature=scale_feature, **support), [f"mean{i}", f"scale{i}"])
        value = code(i, mean, scale, _rounded(y[i], mean))
        done[f"base{i}"], = run(f"base{i}_whole", _correction(lrp), {f"value{i}": value, "mean_feature": mean_feature, **support}, [f"base{i}"])
    return done, params


def _sums(feature, own, *pairs):
    "What a slice of the residual is predicted from: feature, its slice of the base, and earlier means, each with its slice of the base"
    return torch.cat([feature, own, *(m + b for m, b in zip(pairs[::2], pairs[1::2]))], 1)


def _residual(nets, z_hat, base, run):
    "Means and scales of the residual, and what each of its slices is corrected from, by name"
    mean_feature, scale_feature = run("hyper_residual", _hyper(nets, 1), dict(z_hat=z_hat), ["mean_feature_top", "scale_feature_top"])
    means, scales, supports = {}, {}, []
    for i, (cc_mean, cc_scale) in enumerate(zip(nets.cc_mean_transforms_prog, nets.cc_scale_transforms_prog)):
        near, own = range(max(0, i - nets.config.support), i), {f"base{i}": base[f"base{i}"]}
        by_mean = {"mean_feature_top": mean_feature, **own, **{n: t for j in near for n, t in ((f"mean_top{j}", means[f"mean_top{j}"]), (f"base{j}", base[f"base{j}"]))}}
        by_scale = {"scale_feature_top": scale_feature, **own, **{f"scale_top{j}": scales[f"scale_top{j}"] for j in near}}
        means[f"mean_top{i}"], = run(f"residual{i}_mean", Part(lambda *known, a=cc_mean: a(_sums(*known)), cc_mean), by_mean, [f"mean_top{i}"])
        scales[f"scale_top{i}"], = run(f"residual{i}_scale", Part(lambda *known, a=cc_scale: a(torch.cat(known, 1)), cc_scale), by_scale, [f"scale_top{i}"])
        supports.append(by_mean)
    return means, scales, supports


def _top(nets, value, supports, run):
    "The latent of what has been sent of the residual"
    done = {}
    for i, (lrp, support) in enumerate(zip(nets.lrp_transforms_prog, supports)):
        correct = Part(lambda v, feature, own, *pairs, a=lrp: own + v + 0.5 * torch.tanh(a(torch.cat([_sums(feature, own, *pairs), v], 1))), lrp)
        done[f"top{i}"], = run(f"residual{i}_whole", correct, {f"value_top{i}": value[i], **support}, [f"top{i}"])
    return done


def _walk_published(nets, x, run, code):
    "Base, whole residual, and at the end the refinement of each checkpoint"
    c, slices = nets.config, nets.config.level.slices
    if c.encoders == 1: y_base, y_top = run("analysis", Part(lambda x: tuple(nets.g_a(x).chunk(2, 1)), nets.g_a), dict(x=x), ["y_base", "y_top"])
    else: y_base, y_top = (run(f"analysis_{name}", g, dict(x=x), [f"y_{name}"])[0] for name, g in zip(("base", "top"), nets.g_a))
    z, = run("hyper_analysis", Part(nets.side, nets.h_a), dict(y_base=y_base, y_top=y_top), ["z"])
    z_hat = _rounded(z, nets.entropy_bottleneck.medians())
    base, params = _base(nets, z_hat, y_base.chunk(slices, 1), run, code)
    means, scales, supports = _residual(nets, z_hat, base, run)
    all_base, = run("join_base", cat(), base, ["y_hat_base"])
    mean = torch.cat(list(means.values()), 1)
    value = code(slices, mean, torch.cat(list(scales.values()), 1), _rounded(nets.target(y_base, y_top, all_base), mean))
    top = _top(nets, value.chunk(slices, 1), supports, run)
    all_top, = run("join_top", cat(), top, ["y_hat_top"])
    for number, rems in enumerate(nets.post_latent if c.rems else ()):
        for i, rem in enumerate(rems):
            own = {n: t for n, t in ((f"mean_top{i}", means[f"mean_top{i}"]), (f"scale_top{i}", scales[f"scale_top{i}"])) if c.rem_mean or n[0] == "s"}
            refine = Part(lambda y, m, s, *own, a=rem: a(y, torch.cat([m, s], 1), torch.cat(own, 1)), rem)
            run(f"refine{number}_{i}", refine, {f"top{i}": top[f"top{i}"], f"mean{i}": params[f"mean{i}"], f"scale{i}": params[f"scale{i}"], **own}, [f"change{number}_{i}"])
    if c.decoders == 1: return run("synthesis", nets.g_s, dict(y_hat_top=all_top), ["picture"])
    for name, g, latent in zip(("base", "top"), nets.g_s, (all_base, all_top)): run(f"synthesis_{name}", g, {f"y_hat_{name}": latent}, [f"picture_{name}"])


def _walk_staged(nets, x, run, code):
    "Base, then each stage with the refinement before it"
    y, = run("analysis", nets.net.g_a, dict(x=x), ["y"])
    z, = run("hyper_analysis", nets.net.h_a, dict(y=y), ["z"])
    z_hat, scales, parts = _rounded(z, nets.entropy_bottleneck.medians()), [], nets.parts(y)
    def base_part(i, mean, scale):
        scales.append(scale)
        return code(i, mean, scale, _rounded(parts[i], mean))
    value = walk_lean(nets.net, z_hat, torch.tensor(1.0), run, base_part)
    scale, feature, refine = posterior(value, nets.join(scales), value, 1.0)[1], nets.net.h_s(z_hat), Part(lambda f, m, s: nets.refinement(f, m, s, nets.size).chunk(2, 1), nets.refinement)
    for number, step in enumerate(nets.config.steps):
        mean, scale = run("refinement", refine, dict(feature=feature, mean=value, scale=scale), ["mean_refined", "scale_refined"])
        value = code(len(parts) + number, mean, scale, _rounded(y, mean, step))
        shift, width = halved((value - mean) / step)
        value, scale = posterior(mean, scale.clamp(min=SCALE_MIN * step), value + shift * step, width * step)
    value, _ = run("refinement", refine, dict(feature=feature, mean=value, scale=scale), ["mean_refined", "scale_refined"])
    run("synthesis", nets.net.g_s, dict(y_hat=value), ["picture"])


def walk(
    codec,            # a `ProgressiveCodec`
    x: torch.Tensor,  # picture [1, 3, H, W], sides multiples of 64
    run: Callable,    # (name, network, inputs by name, names of its outputs) -> outputs; what is told of every network
    code: Callable,   # (part, mean, scale, value) -> value; what is told of everything coded: parts of the base, then the residual or its stages, whole
) -> None:
    """Send a picture through every network."""
    (_walk_staged if isinstance(codec.model, LeanNetworks) else _walk_published)(codec.model, x, run, code)


def beside(codec, write: Callable) -> dict:
    """For `model.json`: medians about which z is rounded, the checkpoints in percent, and the steps of the stages between them."""
    return {"medians": codec.model.entropy_bottleneck.medians().flatten().tolist(), "checkpoints": list(codec.model.config.rems), "steps": list(getattr(codec.model.config, "steps", [1.0]))}
