"""What the items that train the progressive codec as published have in common: stages that they share, and curves of one variant against another over seeds."""

from pathlib import Path
import numpy as np
from tqdm import tqdm
from ..modelfile import inspect_weights, model_path
from ..progressive.training import run
from ..zoo import load_codec
from .curves import Curve, against, follow
from .items import Run

def trained(
    item: Run,
    stage: str,           # first, decoder or rem
    settings: list,       # name=value each, on top of the profile
    start: str | Path | None = None,  # name or path of the weights it starts from; None: random numbers
) -> Path:                # its weight file
    """One stage, trained unless it is kept: items with equal parameters `store`, `profile` and `data` share what has the same start and settings.

    Raises `StanhlicError` as the training does."""
    v, origin = item.values, inspect_weights(model_path(start))["fingerprint"] if start else None
    folder = item.store(v["store"], profile=v["profile"], stage=stage, start=origin, settings=settings)
    file = folder / "model.safetensors"
    if not file.is_file(): run(stage, v["profile"], v["data"] or None, folder, start, True, v["device"], settings)
    return file

def first_stage(
    item: Run,
    seed: int,
    variant: list = (),  # name=value each, on top of the parameters `steps` and `first`
) -> Path:               # its weight file
    """Stage first from the fixed-rate network `model`; a smoke run begins with random numbers."""
    v = item.values
    return trained(item, "first", [f"steps={v['steps']}", *v["first"], *variant, f"seed={seed}"], None if v["profile"] == "smoke" else v["model"])

def steps_of(
    file: str | Path,  # weights of a progressive model
) -> int:
    """Optimizer steps of its progressive stages, without those of the network that the first began with."""
    return sum(s["plan"]["steps"] for s in inspect_weights(file)["provenance"]["stages"] if s["system"] == "progressive")

def curve_of(
    item: Run,
    file: str | Path,  # weights
    label: str,        # in legends and tables
    method: str,       # chooses the color
) -> Curve:
    """Mean rate and PSNR over the item's pictures: one file of each, cut at `cuts` places and decoded from its bytes."""
    codec = load_codec(file, item.values["device"])
    points = [follow(codec, array, codec.encode(array), item.values["cuts"]) for _, array in tqdm(item.images, desc=label, unit="picture")]
    bpp, psnr = np.mean(points, axis=0).T
    return Curve(method, item.kind, list(bpp), list(psnr), None, label)

def over_seeds(
    tested: list,     # curves, one a seed
    reference: list,  # of the same seeds
) -> dict:            # value (mean, percent), runs (each), low and high (dB, compared in every run); or value None and why
    """BD-rate of one variant against another, each pair trained from the same seed."""
    each = [against(a, b) for a, b in zip(tested, reference)]
    runs = [b["value"] for b in each if b["value"] is not None]
    if len(runs) < len(each): return {"value": None, "runs": runs, "why": next(b["why"] for b in each if b["value"] is None)}
    return {"value": float(np.mean(runs)), "runs": runs, "low": max(b["low"] for b in each), "high": min(b["high"] for b in each)}

def ends(
    curves: dict,  # variant -> curves, one a seed
    seeds: list,
    files: dict,   # variant -> weight files, one a seed
) -> list:         # rows: variant, seed, steps, rate and PSNR of base and whole file
    """A table of what was trained."""
    return [{"variant": c.label, "seed": s, "steps": steps_of(f), "base, bpp": c.bpp[0], "base, PSNR": c.psnr[0], "whole file, bpp": c.bpp[-1], "whole file, PSNR": c.psnr[-1]}
            for n, own in curves.items() for c, s, f in zip(own, seeds, files[n])]

def as_numbers(
    curves: dict,  # variant -> curves, one a seed
) -> dict:
    """The curves as they are kept beside a figure."""
    return {n: [{"label": c.label, "method": c.method, "bpp": c.bpp, "psnr": c.psnr} for c in own] for n, own in curves.items()}
