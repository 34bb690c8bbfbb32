"""How the release refines and prices the residual, for comparison and for training by its recipe; no file can be written this way."""

from dataclasses import replace
import torch
from ..backbone import add_noise
from ..errors import StanhlicError
from ..priors import SCALE_MIN, gaussian_mass, lower_bound
from .masking import slice_mask
from .model import Residual, quantize, send
from .networks import refine

# Three successive versions of the released code disagree about the elements that a REM may touch, and two of them re-price elements that were
# necessarily sent before the checkpoint existed. All recompute the mask on the refined scales and describe one quality at a time.
# With m(q) the mask of a quality q, and b the checkpoint below it:
#     new    m(q) − m(b)    until December 2024, the paper's time
#     old    m(b)           4 January 2025
#     all    m(q)           5 January 2025, its last state
GATES = ("new", "old", "all")

def refined(
    model,                 # ProgressiveModel
    state: Residual,       # nothing of the residual sent yet
    target: torch.Tensor,  # residual [N, M, h, w]
    quality: float,        # in percent
    gate: str,             # new, old or all
) -> Residual:
    """The state after the release's refinement for one quality; raises `StanhlicError` for an unknown gate."""
    if gate not in GATES: raise StanhlicError(f"unknown gate {gate!r}; choose honest, {', '.join(GATES)}")
    below = [q for q in model.config.rems if q < quality]
    if not below: return state
    star, bar = (slice_mask(state.scale, q, model.config.level.slices) for q in (quality, below[-1]))
    with torch.no_grad(): checkpoint = state.put(bar, quantize(target - state.mean) + state.mean).latent(model)
    mean, scale = refine(model, len(below) - 1, checkpoint, state.base_params, state.mean, state.scale)
    gated = {"new": star & ~bar, "old": bar, "all": star}[gate]
    mean, scale = torch.where(gated, mean, state.mean), torch.where(gated, scale, state.scale)
    return replace(state, mean=mean, scale=scale, value=mean)

def published_level(
    gate: str = None,  # new, old or all; none: no REM
):                     # (model, state, target, quality) -> (state, likelihoods), as `ProgressiveModel` takes it for `level`
    """One quality as in the release's `forward_single_quality`: a mask for each slice, and a little charged for every element that is not sent.

    The returned function raises `StanhlicError` for an unknown gate."""
    def level(model, state, target, quality):
        start = state if gate is None else refined(model, state, target, quality, gate)
        mask = slice_mask(start.scale, quality, model.config.level.slices)
        after, _ = send(model, start, target, mask, torch.ones_like(target))
        noisy = add_noise((target - start.mean) * mask, model.training)
        return after, gaussian_mass(noisy - 0.5, noisy + 0.5, lower_bound(start.scale * mask, SCALE_MIN))
    return level

def level_of(
    settings: dict,  # of a training stage: ranking, gate, rems
):                   # for `ProgressiveModel`'s `level`; none: as files are written
    """How a stage's settings price the residual: as the release does if they name its gates, or its ranking without REMs."""
    gate = settings.get("gate", "honest")
    if gate != "honest": return published_level(gate)
    return published_level() if settings.get("ranking") == "slice" and not settings.get("rems") else None
