"""The recurrent layered model: padding, counts, shapes, states, loss, likelihoods."""
from dataclasses import asdict, replace

import pytest
import torch
import torch.nn.functional as F

from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.images import to_tensor
from stanhlic.rnn.cells import ConvLSTM, SameConv2d, same_padding
from stanhlic.rnn.lean import Memory, knowledge
from stanhlic.rnn.model import RnnHyper, factorized_likelihood, gaussian_likelihood, quantize
from stanhlic.rnn.networks import RNN, RNN_SMALL, Decoder, Encoder, HyperDecoder, HyperEncoder, RnnConfig, scaled
from stanhlic.rnn.start import principal_start, step_for
from stanhlic.rnn.training import PRESETS, distortion, layered_loss

SMALL = dict(width=0.0625, latent=8, hyper=8, latent_gain=1000.0)


def count(module): return sum(p.numel() for p in module.parameters())


def small(seed=0, **change):
    torch.manual_seed(seed)
    return RnnHyper(RnnConfig(**(SMALL | change)))


# %% cells

@pytest.mark.parametrize("kernel", (1, 2, 3))
@pytest.mark.parametrize("stride", (1, 2))
@pytest.mark.parametrize("size", (5, 6, 7, 8))
def test_same_padding_keeps_the_tensorflow_size(size, kernel, stride):
    before, after = same_padding(size, kernel, stride)
    assert 0 <= after - before <= 1
    assert SameConv2d(1, 1, kernel, stride)(torch.zeros(1, 1, size, size)).shape[-1] == -(-size // stride)


def test_strided_and_even_kernels_pad_after():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 8, 8)
    for kernel, stride in ((3, 2), (2, 1)):
        conv = SameConv2d(3, 4, kernel, stride)
        assert torch.equal(conv(x), F.conv2d(F.pad(x, (0, 1, 0, 1)), conv.weight, conv.bias, stride))


def test_cell_against_its_definition():
    torch.manual_seed(0)
    cell, x = ConvLSTM(3, 4, 3, 2, hidden_kernel=1), torch.randn(1, 3, 8, 8)
    h, c = torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4)
    gates = F.conv2d(F.pad(x, (0, 1, 0, 1)), cell.x2g.weight, cell.x2g.bias, 2) + F.conv2d(h, cell.h2g.weight, cell.h2g.bias)
    i, f, o, g = gates.split(4, 1)
    new = f.sigmoid() * c + i.sigmoid() * g.tanh()
    out, (h2, c2) = cell(x, (h, c))
    assert torch.allclose(c2, new, atol=1e-6) and torch.allclose(out, o.sigmoid() * new.tanh(), atol=1e-6) and h2 is out


def test_forget_bias_sits_in_the_forget_gate():
    bias = ConvLSTM(3, 2, forget_bias=1.0).x2g.bias
    assert bias.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


# %% networks

def test_published_counts():
    with torch.device("meta"):
        assert [count(n()) for n in (Encoder, Decoder, HyperEncoder, HyperDecoder)] == [36_056_960, 21_622_755, 2_525_440, 2_103_552]
        assert count(RnnHyper(RNN)) == 62_339_939
        assert [count(RnnHyper(RnnConfig(width=w))) for w in (0.5, 0.25)] == [19_139_571, 8_309_819]
        assert count(RnnHyper(RnnConfig(hyperprior=False))) == 57_679_715 + 4 * 7808


@pytest.mark.parametrize("height, width", ((256, 256), (512, 768)))
def test_shapes_of_latents_and_states(height, width):
    with torch.device("meta"):
        y, e = Encoder()(torch.empty(1, 3, height, width))
        z, he = HyperEncoder()(y)
        s, hd = HyperDecoder()(z)
        x, d = Decoder()(y)
    at = lambda channels, factor: (1, channels, height // factor, width // factor)
    sizes = lambda states: [tuple(c.shape) for _, c in states]
    assert (tuple(y.shape), tuple(z.shape), tuple(s.shape), tuple(x.shape)) == (at(128, 16), at(128, 64), at(128, 16), at(3, 1))
    assert sizes(e) == [at(256, 4), at(512, 8), at(512, 16)] and sizes(he) == [at(128, 32), at(128, 64)]
    assert sizes(hd) == [at(128, 64), at(128, 32)] and sizes(d) == [at(512, 16), at(512, 8), at(256, 4), at(128, 2)]


def test_state_dict_keys():
    keys = set(small().state_dict())
    assert {"enc.r1.x2g.weight", "dec.r4.h2g.bias", "henc.out.weight", "hdec.inp.bias", "eb.3.quantiles"} <= keys


@pytest.mark.parametrize("bad", (dict(layers=0), dict(hidden_kernel=2), dict(rounding="soft"), dict(hyper=6), dict(width=0), dict(lean=True), dict(quarter=1), dict(memory=0)))
def test_impossible_sizes_are_refused(bad):
    with pytest.raises(StanhlicError): RnnConfig(**bad).check()


def test_scaled_widths_fold_into_pixels(): assert all(scaled(c, w) % 4 == 0 for c in (64, 128, 512) for w in (0.03, 0.1, 0.37, 1.0))


# %% model

def test_weights_are_shared_and_priors_are_not():
    model, x = small().eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before = model(x)["likelihoods"]
        model.enc.r2.x2g.weight[0, 0, 1, 1] += 3
        after = model(x)["likelihoods"]
    assert all(not torch.equal(b["y"], a["y"]) for b, a in zip(before[:2], after))
    assert len({p.data_ptr() for p in (eb._matrix0 for eb in model.eb)}) == 4


@pytest.mark.parametrize("change", ({}, dict(hyperprior=False), dict(mean_scale=True), dict(hidden_kernel=1), dict(layers=6), asdict(RNN_SMALL)))
def test_variants_train_and_evaluate(change):
    model, x = small(**change), torch.rand(2, 3, 64, 64)
    for rounding in ("noise", "ste"):
        out = RnnHyper(RnnConfig(**(SMALL | change | {"rounding": rounding}))).train()(x)
        assert len(out["x_hat"]) == len(out["likelihoods"]) == change.get("layers", 4)
    assert all(((p >= 0) & (p <= 1 + 1e-6)).all() for o in out["likelihoods"] for p in o.values())
    sum(o.square().mean() + sum(p.clamp(min=1e-9).log().mean() for p in l.values()) for o, l in zip(out["x_hat"], out["likelihoods"])).backward()
    with torch.no_grad(): a, b = model.eval()(x), model(x, layers=2)
    assert all(torch.equal(p, q) for p, q in zip(a["x_hat"], b["x_hat"])) and len(b["x_hat"]) == 2


def test_every_parameter_but_the_quantiles_gets_a_gradient():
    model, x = small(latent_gain=1e5), torch.rand(1, 3, 64, 64)
    out = model(x)
    sum(o.square().mean() - sum(p.clamp(min=1e-9).log().mean() for p in l.values()) for o, l in zip(out["x_hat"], out["likelihoods"])).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None and not n.endswith("quantiles")] == []
    model.zero_grad(); model.aux_loss().backward()
    assert [n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0] == [f"eb.{k}.quantiles" for k in range(4)]


def test_error_of_a_layer_is_that_of_its_residual():
    model, x = small().eval(), torch.rand(1, 3, 64, 64)
    with torch.no_grad(): pictures = [torch.full_like(x, 0.5), *model(x)["x_hat"]]
    for a, b in zip(pictures, pictures[1:]): assert torch.allclose(F.mse_loss(b, x), F.mse_loss(b - a, x - a), rtol=1e-5)


def test_likelihoods_are_probabilities_of_unit_cells():
    k = torch.arange(-400., 401.)
    assert torch.allclose(gaussian_likelihood(k, torch.tensor(20.)).sum(), torch.tensor(1.), atol=1e-5)
    model = small()
    grid = k.view(1, 1, 1, -1).expand(1, 8, 1, -1)
    assert torch.allclose(factorized_likelihood(model.eb[0], grid).sum(-1), torch.ones(1, 8, 1), atol=1e-4)


def test_rounding_in_training():
    v = torch.linspace(-3, 3, 101, requires_grad=True)
    noisy, seen = quantize(v, True, "noise")
    assert noisy is seen and (noisy - v).abs().max() <= 0.5
    noisy, seen = quantize(v, True, "ste")
    assert torch.allclose(seen, v.round()) and not torch.equal(noisy, seen)
    assert torch.autograd.grad(seen.sum(), v)[0].eq(1).all()


def test_bf16_autocast_keeps_memory_and_likelihoods_in_single_precision():
    model, x = small(), torch.rand(1, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        out, (_, states) = model(x), model.enc(x)
    assert {t.dtype for t in (*out["x_hat"], *(p for l in out["likelihoods"] for p in l.values()), *(c for _, c in states))} == {torch.float32}


# %% the lean shape

def started():
    """An untrained lean model that begins as principal components, and a photograph."""
    torch.manual_seed(0)
    x = torch.cat([to_tensor(sample_photograph()[y:y + 128, 100:228]) for y in (0, 200)])
    return principal_start(RnnHyper(replace(RNN_SMALL, latent=32, eighth=24)), x, PRESETS["rd-sheet"].lambdas).eval(), x


def test_the_start_sends_a_better_picture_with_every_layer():
    model, x = started()
    with torch.no_grad(): errors = [F.mse_loss(o, x).item() for o in model(x)["x_hat"]]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.003
    assert model.log_step[:, 0, 0, 0].exp().tolist() == pytest.approx([step_for(v) for v in PRESETS["rd-sheet"].lambdas])


def test_a_layer_begins_at_what_the_one_before_left_open():
    model, _ = started()
    v, scale = torch.randn(1, 32, 4, 4).round(), torch.rand(1, 32, 4, 4) + 0.2
    width = model.spread(1, model.learn([], v, scale), v)
    assert torch.allclose(width, 2 ** 0.5 * (scale ** -2 + 12) ** -0.5, rtol=1e-4) and torch.equal(model.spread(0, None, v), model.size[0])
    assert torch.equal(knowledge(v, scale)[0].sign(), v.sign())


def test_symbols_of_a_layer_move_the_scales_of_the_next():
    model, x = started()
    with torch.no_grad():
        y, z = model.enc(x - 0.5)[0], torch.zeros(2, 8, 2, 2)
        parameters, states = model.hdec(z)
        same = [model.hdec(z, model.learn(states, v, torch.ones_like(y)))[0] for v in (torch.zeros_like(y), torch.ones_like(y))]
    assert not torch.equal(*same)


def test_a_silent_memory_passes_everything_on():
    memory, x = Memory(6, 4), torch.randn(1, 6, 4, 4)
    torch.nn.init.zeros_(memory.out.weight); torch.nn.init.zeros_(memory.out.bias)
    assert torch.equal(memory(x)[0], x)


# %% loss

def test_weight_of_each_rate():
    rates = torch.ones(4, requires_grad=True)
    grad = lambda mode: torch.autograd.grad(layered_loss([torch.tensor(0.)] * 4, list(rates), (1,) * 4, mode), rates)[0].tolist()
    assert grad("cumulative") == [4, 3, 2, 1] and grad("plain") == [1, 1, 1, 1]
    with pytest.raises(StanhlicError): grad("total")


def test_presets():
    assert {n: len(p.lambdas) for n, p in PRESETS.items()} == {"rd-sheet": 4, "readme": 4, "msssim": 4, "wide8": 8, "fine8": 8}
    assert PRESETS["wide8"].lambdas[-1] == pytest.approx(0.128) and PRESETS["fine8"].lambdas[-1] == pytest.approx(0.0113, rel=0.01)


def test_ms_ssim_needs_large_crops():
    x = torch.rand(1, 3, 176, 176)
    assert 0 < float(distortion((x + 0.1 * torch.randn_like(x)), x, "ms-ssim")) < 1
    with pytest.raises(StanhlicError, match="160"): distortion(x[..., :128, :128], x[..., :128, :128], "ms-ssim")
