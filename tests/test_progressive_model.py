"""The progressive networks: exact size, keys, and pictures of the published form."""
from dataclasses import replace

import pytest
import torch

from stanhlic.errors import StanhlicError
from stanhlic.progressive.masking import slice_mask
from stanhlic.progressive.model import ProgressiveModel, random_model, predict
from stanhlic.progressive.networks import PROGRESSIVE, PROGRESSIVE_SINGLE, PROGRESSIVE_SMOKE, top_latent
from stanhlic.progressive.published import GATES, level_of, published_level, refined

IMAGE = torch.rand(2, 3, 64, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("config, parameters, tensors", [
    (PROGRESSIVE, 149_997_766, 1065), (PROGRESSIVE_SINGLE, 152_137_398, 965),
    (replace(PROGRESSIVE, rems=(7.5,)), 149_997_766 + 3_797_760, 1065 + 420),
    (replace(PROGRESSIVE, rems=(7.5, 20.0), rem_depth="big"), 149_997_766 + 2 * 5_091_200, 1065 + 2 * 580)])
def test_full_size_is_exact(config, parameters, tensors):
    with torch.device("meta"): model = ProgressiveModel(config)
    assert (sum(p.numel() for p in model.parameters()), len(list(model.parameters()))) == (parameters, tensors)


def test_state_dict_has_the_keys_of_the_release_but_for_tables():
    with torch.device("meta"): keys = ProgressiveModel(PROGRESSIVE).state_dict().keys()
    assert len(keys) == 1133 - 12                                   # five buffers of the prior and seven of the Gaussian hold tables
    assert {"g_a.1.8.conv_b.0.attn.qkv.weight", "h_scale_s.1.6.0.bias", "lrp_transforms_prog.9.8.bias", "entropy_bottleneck._factor3"} <= keys


@pytest.mark.parametrize("quality", [0.5, 7.5, 60, 100])
def test_published_picture(quality):
    model = random_model(PROGRESSIVE_SMOKE)
    with torch.no_grad():
        out = model(IMAGE, quality=quality, ranking="slice")
        y_base, y_top = model.analyze(IMAGE)
        z_hat, _ = model.code_z(model.side(y_base, y_top))
        base, params, _ = model.base_level(y_base, z_hat)
        state = predict(model, z_hat, base, params)
        mask = slice_mask(state.scale, quality, 4)
        residual = torch.round(y_top - y_base - state.mean) * mask + state.mean
        assert torch.allclose(out["x_hat"], model.g_s[1](top_latent(model, base, residual, state.supports)), atol=1e-5)
    assert torch.equal(out["sent"], mask)
    assert (out["likelihoods"]["residual"][~mask] > 0.99999).all()


@pytest.mark.parametrize("encoders, hypers, decoders", [(1, 2, 2), (2, 1, 2), (2, 2, 1), (1, 1, 1)])
def test_variants_run(encoders, hypers, decoders):
    model = random_model(replace(PROGRESSIVE_SMOKE, encoders=encoders, hypers=hypers, decoders=decoders))
    with torch.no_grad(): assert model(IMAGE, quality=30)["x_hat"].shape == IMAGE.shape


@pytest.mark.parametrize("depth", ["middle", "big"])
@pytest.mark.parametrize("mean", [True, False])
def test_rate_rises_and_decoded_elements_stay(depth, mean):
    model = random_model(replace(PROGRESSIVE_SMOKE, rems=(10.0, 40.0), rem_depth=depth, rem_mean=mean))
    with torch.no_grad(): outs = [model(IMAGE, quality=q) for q in (0, 2, 10, 10.5, 40, 41, 80, 100)]
    rates = [sum(float(-p.log2().sum()) for p in o["likelihoods"].values()) for o in outs]
    assert all(a < b for a, b in zip(rates, rates[1:]))
    for low, high in zip(outs[1:], outs[2:]):
        assert (high["sent"] | ~low["sent"]).all()
        assert torch.equal(low["likelihoods"]["residual"][low["sent"]], high["likelihoods"]["residual"][low["sent"]])


@pytest.mark.parametrize("gate", GATES)
def test_gates(gate):
    """Below the checkpoint a gate has nothing to do; above it the rate differs from that of a file."""
    model = random_model(replace(PROGRESSIVE_SMOKE, rems=(10.0,)))
    with torch.no_grad():
        at = lambda q, level: model(IMAGE, quality=q, ranking="slice", level=level)
        assert at(50, published_level(gate))["x_hat"].isfinite().all()
        assert torch.equal(at(10, published_level(gate))["x_hat"], at(10, None)["x_hat"])
        assert not torch.equal(at(50, published_level(gate))["likelihoods"]["residual"], at(50, None)["likelihoods"]["residual"])


def test_the_release_charges_a_trace_for_what_it_does_not_send():
    model = random_model(PROGRESSIVE_SMOKE)
    with torch.no_grad(): ours, theirs = (model(IMAGE, quality=20, ranking="slice", level=level) for level in (None, published_level()))
    assert torch.equal(ours["x_hat"], theirs["x_hat"]) and torch.equal(ours["sent"], theirs["sent"])
    p, q = ours["likelihoods"]["residual"], theirs["likelihoods"]["residual"]
    assert torch.equal(p[ours["sent"]], q[ours["sent"]]) and (p[~ours["sent"]] == 1).all() and (q[~ours["sent"]] < 1).all() and (q[~ours["sent"]] > 0.99999).all()


@pytest.mark.parametrize("settings, as_files", [({}, True), ({"ranking": "global", "gate": "honest"}, True), ({"ranking": "slice", "rems": [7.5]}, True), ({"ranking": "slice"}, False), ({"ranking": "slice", "gate": "new", "rems": [7.5]}, False)])
def test_a_stage_prices_as_its_settings_say(settings, as_files): assert (level_of(settings) is None) == as_files


@pytest.mark.parametrize("gate, inside", [("new", lambda star, bar: star & ~bar), ("old", lambda star, bar: bar), ("all", lambda star, bar: star)])
def test_a_published_gate_refines_what_it_says(gate, inside):
    """Scales change somewhere inside the gate and nowhere else."""
    model = random_model(replace(PROGRESSIVE_SMOKE, rems=(10.0,)))
    with torch.no_grad():
        y_base, y_top = model.analyze(IMAGE)
        z_hat, _ = model.code_z(model.side(y_base, y_top))
        base, params, _ = model.base_level(y_base, z_hat)
        start = predict(model, z_hat, base, params)
        after = refined(model, start, y_top - y_base, 50, gate)
    star, bar = (slice_mask(start.scale, q, model.config.level.slices) for q in (50, 10.0))
    changed, allowed = after.scale != start.scale, inside(star, bar)
    assert changed.any() and not (changed & ~allowed).any()


def test_refusals():
    model = random_model(PROGRESSIVE_SMOKE)
    for wrong in (dict(quality=-1), dict(quality=100.1), dict(quality=5, ranking="x"), dict(quality=5, level=published_level("x"))):
        with pytest.raises(StanhlicError), torch.no_grad(): model(IMAGE, **wrong)
