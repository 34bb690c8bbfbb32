"""Rate models for uneven levels: both forms, hard and soft bits, coding tables."""
import math

import numpy as np
import pytest
import torch

from stanhlic.entropy import SymbolDecoder, SymbolEncoder, Tables
from stanhlic.errors import StanhlicError
from stanhlic.priors import FactorizedPrior, scale_table
from stanhlic.stanh.quantizer import STanH, Staircase, from_extrema, jump_levels
from stanhlic.stanh.rate import (FORMS, bits_hard, bits_soft, cell_edges, coding_tables, factorized_bits_hard, factorized_bits_soft,
                                 factorized_mass, factorized_midpoint, factorized_pmf, from_symbols, gaussian_midpoint, gaussian_pmf, to_symbols)


def uneven(count=20, seed=0, dtype=torch.float32):
    gen = torch.Generator().manual_seed(seed)
    w = (torch.rand(count, generator=gen) + 0.3).to(dtype)
    b = (torch.rand(count, generator=gen) + 0.3).cumsum(0).to(dtype)
    b = b - b.mean()
    return Staircase(w, b, jump_levels(w))


class Logistic:
    """Stand-in prior of 3 channels with known masses."""
    scale = torch.tensor([0.5, 1.0, 3.0])
    def logits(self, x): return x / self.scale.to(x.dtype)[:, None, None]


def published_gaussian(v, sigma, q):
    """The released rule, element by element in float64."""
    c = q.levels.double().tolist(); T = len(c) - 1
    a, d = [(x + y) / 2 for x, y in zip(c, c[1:])], [(y - x) / 2 for x, y in zip(c, c[1:])]
    phi = lambda t: 0.5 * math.erfc(-t / math.sqrt(2))
    out = []
    for x, s in zip(v.double().tolist(), sigma.double().tolist()):
        k = sum(x > edge for edge in a)
        low, up = (d[k - 1] if k else 0.0), (d[k] if k < T else 0.0)
        p = phi((low - x) / s) - phi((-up - x) / s) if x >= 0 else phi((x + up) / s) - phi((x - low) / s)
        out.append(max(p, 1e-9))
    return torch.tensor(out, dtype=torch.float64)


def test_published_likelihood_on_and_off_the_grid():
    q, gen = uneven(), torch.Generator().manual_seed(1)
    v = torch.cat([torch.randn(400, generator=gen) * 5, q.levels])
    sigma = torch.rand(v.shape, generator=gen) * 3 + 0.11
    assert torch.allclose(gaussian_midpoint(v, sigma, q).double(), published_gaussian(v, sigma, q), rtol=2e-3, atol=1e-9)
    on = slice(400, None)
    bits = bits_hard(torch.arange(21), sigma[on], q, "midpoint")
    assert torch.allclose(bits, -gaussian_midpoint(v, sigma, q).log2()[on], atol=2e-3)


@pytest.mark.parametrize("form", FORMS)
def test_pmf_equals_hard_bits(form):
    q, sigma = uneven(), torch.tensor([0.3, 1.0, 7.0])
    pmf = gaussian_pmf(q, sigma, form)
    assert pmf.dtype == torch.float64 and pmf.shape == (3, 21) and (pmf >= 0).all()
    if form == "threshold": assert torch.allclose(pmf.sum(1), torch.ones(3, dtype=torch.float64), atol=1e-14)
    else: assert (pmf.sum(1) < 1 + 1e-12).all() and pmf[2].sum() < 0.9   # the tails are lost
    k = torch.arange(21).repeat(3)
    expected = -pmf.clamp(min=1e-9).log2().flatten().float()
    assert torch.allclose(bits_hard(k, sigma.repeat_interleave(21), q, form), expected, atol=2e-3)


def test_tiny_probabilities_keep_their_digits_in_float32():
    q = from_extrema(60)
    k, sigma = torch.tensor([62, 58, 63, 57]), torch.full((4,), 0.3)
    exact = torch.tensor([0.5 * (math.erfc((abs(n - 60) - 0.5) / 0.3 / math.sqrt(2)) - math.erfc((abs(n - 60) + 0.5) / 0.3 / math.sqrt(2))) for n in k.tolist()])
    assert torch.allclose(bits_hard(k, sigma, q), -exact.clamp(min=1e-9).log2(), atol=1e-3)


@pytest.mark.parametrize("prior", [Logistic(), FactorizedPrior(3)])
def test_factorized_mass_and_bits(prior):
    q, z = uneven(), torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0)) * 4
    mass = factorized_mass(prior, q)
    assert torch.allclose(mass.sum(1), torch.ones(3), atol=1e-6)
    k = q.index(z)
    bits = factorized_bits_hard(k, prior, q)
    for i in np.ndindex(2, 3, 6): assert torch.allclose(bits[i], -mass[i[1], k[i].long()].clamp(min=1e-9).log2(), atol=1e-5)
    if isinstance(prior, FactorizedPrior):
        for form in FORMS: assert torch.allclose(factorized_pmf(prior, q, form).float(), factorized_mass(prior, q, form), atol=1e-6)


def test_symmetric_logistic_gives_its_zero_cell_a_mass():
    mass = factorized_mass(Logistic(), from_extrema(5, symmetric=True))
    assert torch.allclose(mass[1, 5], 2 * torch.sigmoid(torch.tensor(0.5)) - 1, atol=1e-6)


def test_factorized_published_likelihood_off_the_grid():
    q, v = uneven(), torch.randn(2, 3, 40, generator=torch.Generator().manual_seed(0)) * 4
    p = factorized_midpoint(v, Logistic(), q)
    c = q.levels
    d = c.diff() / 2
    k = torch.bucketize(v, (c[1:] + c[:-1]) / 2)
    low, up = torch.cat([d.new_zeros(1), d])[k], torch.cat([d, d.new_zeros(1)])[k]
    scale = Logistic.scale[None, :, None].double()
    expected = torch.sigmoid((v + up) / scale) - torch.sigmoid((v - low) / scale)
    assert torch.allclose(p.double(), expected.clamp(min=1e-9), rtol=1e-3, atol=1e-9)


def soft_by_definition(v, sigma, q, beta):
    b = torch.cat([q.thresholds.new_tensor([-1e9, -1e9]), q.thresholds, q.thresholds.new_tensor([1e9, 1e9])])
    k = torch.bucketize(v.detach(), q.thresholds)
    total = weight = 0
    for j in range(3):
        lo, hi = b[k + j], b[k + j + 1]
        m = torch.sigmoid(2 * beta * (v - lo)) - torch.sigmoid(2 * beta * (v - hi))
        p = torch.special.ndtr(hi / sigma) - torch.special.ndtr(lo / sigma)
        total, weight = total - m * p.clamp(min=1e-9).log2(), weight + m
    return total / weight


@pytest.mark.parametrize("beta", [0.8, 5.0, 30.0])
def test_soft_bits_and_gradients_equal_the_definition(beta):
    gen = torch.Generator().manual_seed(0)
    q = uneven(12, dtype=torch.float64)
    b = q.thresholds.clone().requires_grad_()
    q = Staircase(q.jumps, b, q.levels)
    v = (torch.randn(40_000, generator=gen, dtype=torch.float64) * 3).requires_grad_()
    sigma = (torch.rand(40_000, generator=gen, dtype=torch.float64) * 3 + 2.0).requires_grad_()   # scales at which nothing meets the floor
    weight = torch.randn(v.shape, generator=gen, dtype=torch.float64)
    fast, slow = bits_soft(v, sigma, q, beta), soft_by_definition(v, sigma, q, beta)
    assert torch.allclose(fast, slow, atol=1e-8)
    for f, s in zip(torch.autograd.grad((fast * weight).sum(), (v, sigma, b)), torch.autograd.grad((slow * weight).sum(), (v, sigma, b))):
        assert (f - s).abs().max() < 1e-6 * s.abs().max()


def test_soft_bits_in_float32_follow_float64():
    gen = torch.Generator().manual_seed(0)
    q = from_extrema(60, symmetric=True)
    sigma = torch.rand(20_000, generator=gen) * 4 + 0.11
    v = torch.randn(20_000, generator=gen) * sigma
    wide = q.staircase().detach().to(torch.float64)
    same = q.index(v) == wide.index(v.double())
    for beta in (1.0, 10.0, 300.0):
        with torch.no_grad(): error = (bits_soft(v, sigma, q, beta) - bits_soft(v.double(), sigma.double(), wide, beta)).abs()[same]
        assert error.max() < 1e-2 and error.mean() < 1e-4


def test_soft_bits_never_give_a_nan():
    v = torch.tensor([0.0, 0.5, -3e4, 1e6, 60.0, -60.0, 1e-30]).repeat(3).requires_grad_()
    sigma = torch.tensor([0.11, 1.0, 1e5]).repeat_interleave(7).requires_grad_()
    for beta in (0.01, 5.0, 1e5):
        q = from_extrema(60)
        v.grad = sigma.grad = None
        bits = bits_soft(v, sigma, q, beta)
        bits.sum().backward()
        for t in (bits, v.grad, sigma.grad, q.raw_thresholds.grad): assert torch.isfinite(t).all()
        hard = bits_hard(q.index(v), sigma, q)
        assert torch.isfinite(torch.autograd.grad(hard.sum(), sigma)[0]).all()


def test_gradients_reach_prior_and_thresholds_of_z():
    prior, q = FactorizedPrior(3), from_extrema(20)
    z = (torch.randn(2, 3, 4, 4) * 3).requires_grad_()
    factorized_bits_soft(z, prior, q, 5.0).sum().backward()
    assert z.grad.abs().sum() > 0 and q.raw_thresholds.grad.abs().sum() > 0 and prior._matrix0.grad.abs().sum() > 0


def test_rate_falls_when_only_the_rate_is_trained():
    torch.manual_seed(0)
    q, v = from_extrema(5, symmetric=True), torch.randn(20_000)
    sigma = torch.ones_like(v)
    optimizer = torch.optim.Adam(q.parameters(), 0.03)
    first = bits_hard(q.index(v), sigma, q).mean().item()
    for _ in range(40):
        optimizer.zero_grad(); bits_soft(v, sigma, q, 5.0).mean().backward(); optimizer.step()
    assert bits_hard(q.index(v), sigma, q).mean().item() < 0.8 * first


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("quantizer", [from_extrema(60), uneven(), from_extrema(20, 90), STanH(torch.tensor([0.5]), torch.tensor([0.0]))])
def test_tables_are_exact_and_code_everything(form, quantizer):
    freq = coding_tables(gaussian_pmf(quantizer, scale_table(), form, closed=True))
    L = quantizer.num_levels
    assert freq.shape == (64, L + 1) and (freq.sum(1) == 2**24).all() and (freq >= 1).all()
    gen = torch.Generator().manual_seed(0)
    row = torch.randint(0, 64, (3000,), generator=gen)
    x = torch.randn(3000, generator=gen) * scale_table()[row].float()
    k = quantizer.index(x, extend=True)
    symbols, overflow = to_symbols(k, L)
    tables = Tables(freq)
    data = SymbolEncoder().encode(symbols, row.numpy(), tables).bytes()
    back = from_symbols(SymbolDecoder(data).decode(row.numpy(), tables), overflow, L)
    assert (back == k.numpy()).all() and torch.equal(quantizer.dequantize(torch.from_numpy(back)), quantizer.dequantize(k))
    assert abs(8 * len(data) - tables.bits(symbols, row.numpy()).sum()) < 64


def test_tables_of_z_cost_what_the_estimate_says():
    torch.manual_seed(0)
    prior, q = FactorizedPrior(4), from_extrema(40)
    z = torch.randn(1, 4, 40, 40) * 5
    k = q.index(z, extend=True)
    tables = Tables(coding_tables(factorized_pmf(prior, q, closed=True)))
    rows = np.broadcast_to(np.arange(4)[None, :, None, None], k.shape)
    real, estimate = tables.bits(to_symbols(k, q.num_levels)[0], rows).sum(), factorized_bits_hard(k, prior, q).sum().item()
    assert abs(real / estimate - 1) < 1e-3


def test_refusals():
    q = uneven()
    with pytest.raises(StanhlicError, match="threshold or midpoint"): cell_edges(q, "other")
    with pytest.raises(StanhlicError, match="damaged"): from_symbols([21, 3], [], 21)
    with pytest.raises(StanhlicError, match="damaged"): from_symbols([21, 3], [0], 21)
    with pytest.raises(StanhlicError, match="finite"): coding_tables(torch.full((1, 3), math.nan))
