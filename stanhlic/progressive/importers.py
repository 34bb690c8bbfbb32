"""Reads the authors' checkpoints, with one encoder or two, with REMs or without, and says exactly what does not fit."""

import argparse, re
from pathlib import Path
import torch
from .. import modelfile
from ..backbone import Zou22Config
from ..errors import StanhlicError
from .model import ProgressiveModel
from .networks import ProgressiveConfig

def read_checkpoint(
    path: str | Path,  # the authors' .pth.tar, or any file with a state dict
) -> tuple[dict, dict]:  # tensors; arguments of the training run, empty if there are none
    """Tensors and arguments of a checkpoint; raises `StanhlicError` if it is missing or holds anything but plain values."""
    found = modelfile.read_checkpoint(path, known=[argparse.Namespace])
    args = found.get("args", {})
    tensors = {k: v for k, v in found.get("state_dict", found).items() if torch.is_tensor(v)}
    if not tensors: raise StanhlicError(f"{path}: holds no state dict; give the authors' file")
    return tensors, vars(args) if isinstance(args, argparse.Namespace) else dict(args or {})

_PREFIX = re.compile(r"^(?:module\.)?(?:base_net\.)?")
_RENAMED = [(r"^g_a_enh\.", "g_a.1."), (r"\.enc_enh_entropy_params\.", ".enc_progressive_entropy_params."),
            (r"^entropy_bottleneck\.matrices\.", "entropy_bottleneck._matrix"), (r"^entropy_bottleneck\.biases\.", "entropy_bottleneck._bias"),
            (r"^entropy_bottleneck\.factors\.", "entropy_bottleneck._factor")]
_TABLES = re.compile(r"^gaussian_conditional\.|^entropy_bottleneck\.(_offset|_quantized_cdf|_cdf_length|target|likelihood_lower_bound)")

def release_keys(
    tensors: dict,  # state dict of any generation
) -> dict:          # with the names of the release, without buffers of tables
    """Give every tensor the name it has here."""
    plain = {_PREFIX.sub("", k): v for k, v in tensors.items()}
    named, split = {}, any(k.startswith("g_a_enh.") for k in plain)
    for key, value in plain.items():
        if split: key = re.sub(r"^g_a\.", "g_a.0.", key)
        for pattern, name in _RENAMED: key = re.sub(pattern, name, key)
        if not _TABLES.match(key): named[key] = value
    return named

_USUAL = {0: (), 1: (7.5,), 2: (7.5, 20.0), 3: (0.1, 2.5, 17.5)}  # README, plotted model, class default of the release

def _count(keys, pattern): return 1 + max((int(m[1]) for k in keys if (m := re.match(pattern, k))), default=-1)

def _level(s, transforms) -> Zou22Config:
    "Sizes of one level from shapes"
    slices = _count(s, r"cc_mean_transforms\.(\d+)\.")
    last = [s[f"cc_mean_transforms.{slices - 1}.{i}.weight"] for i in range(0, 2 * _count(s, r"cc_mean_transforms\.0\.(\d+)\."), 2) if f"cc_mean_transforms.{slices - 1}.{i}.weight" in s]
    size, latent = last[-1].shape[0], last[-1].shape[0] * slices
    *outer, width = (len(s[f"{transforms}.{i}.weight"]) for i in (0, 2, 5))
    gate = f"{transforms}.8"
    return Zou22Config(width=width, latent=latent, slices=slices, support=(last[0].shape[1] - latent) // size,
        context=tuple(w.shape[0] for w in last[:-1]), heads=s[f"{gate}.conv_b.0.attn.relative_position_bias_table"].shape[1], units=_count(s, re.escape(gate) + r"\.conv_a\.(\d+)\."),
        outer=() if outer == [width, width] else tuple(outer), outer_gate=any(k.startswith(f"{transforms}.4.") for k in s))

def detect(
    tensors: dict,  # of `release_keys`
    rems=None,      # qualities of the checkpoints in percent; default: the usual ones for their number
) -> ProgressiveConfig:
    """Variant and sizes of a state dict; raises `StanhlicError` if it is not a progressive network's."""
    s = tensors
    if not {"h_a.0.weight", "cc_mean_transforms_prog.0.0.weight"} <= s.keys():
        raise StanhlicError("these are not the tensors of a progressive network (no cc_mean_transforms_prog); a fixed-rate one is imported as zou22")
    two = lambda key: 2 if key in s else 1
    encoders = two("g_a.0.0.weight")
    level = _level(s, "g_a.0" if encoders == 2 else "g_a")
    size, last, number = level.latent // level.slices, level.slices - 1, _count(s, r"post_latent\.(\d+)\.")
    final = f"post_latent.0.0.enc.{_count(s, r'post_latent.0.0.enc.([0-9]+).') - 1}.conv2.weight"
    if rems is None and number not in _USUAL: raise StanhlicError(f"{number} REM checkpoints whose qualities are not in the file; give them as rems")
    rems = _USUAL[number] if rems is None else tuple(map(float, rems))
    if len(rems) != number: raise StanhlicError(f"{len(rems)} checkpoint qualities for {number} REMs in the file; give one for each")
    return ProgressiveConfig(level, encoders, two("h_mean_s.0.0.weight"), two("g_s.0.1.weight"), (s[f"cc_mean_transforms_prog.{last}.0.weight"].shape[1] - level.latent) // size - 1,
        rems, "big" if "post_latent.0.0.enc.3.conv1.weight" in s else "middle", final not in s or s[final].shape[0] == 2 * size, ranking="slice")

def import_progressive(
    path: str | Path,  # the authors' .pth.tar
    rems=None,         # qualities of the REM checkpoints in percent; default: from the file's arguments, else the usual ones
) -> ProgressiveModel:
    """Read a checkpoint of the authors of Presta et al. (2025), REMs included.

    Raises `StanhlicError` if it is not a checkpoint or not a progressive network, was trained in a way that no file can follow, or has missing or unexpected keys."""
    tensors, args = read_checkpoint(path)
    tensors = release_keys(tensors)
    for flag in ("all_scalable", "delta_encode", "total_mu_rep"):
        if args.get(flag) is False: raise StanhlicError(f"{path}: trained without --{flag}, so its residual cannot be decoded element by element; take another checkpoint")
    number = _count(tensors, r"post_latent\.(\d+)\.")
    if rems is None and number and len(args.get("check_levels") or ()) == number: rems = [10 * float(q) for q in args["check_levels"]]
    config = detect(tensors, rems)
    with torch.device("meta"): model = ProgressiveModel(config)
    modelfile.check_keys(model.state_dict(), tensors, path, "progressive")
    model = ProgressiveModel(config)
    model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    return model.eval()
