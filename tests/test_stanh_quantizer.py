"""The STanH quantizer and its β schedules: exactness, gradients, forms, memory."""
import copy
import math
import random
import subprocess
import sys

import pytest
import torch

from stanhlic.errors import StanhlicError
from stanhlic.stanh.annealing import SCHEDULES, GapStochastic, gap, make_schedule
from stanhlic.stanh.quantizer import STanH, Staircase, cell_index, from_extrema, interpolate, jump_levels, stanh_sum

FORMS = ({}, {"symmetric": True}, {"free": True})


def uneven(count=40, seed=0, dtype=torch.float32):
    gen = torch.Generator().manual_seed(seed)
    w = (torch.rand(count, generator=gen) + 0.2).to(dtype)
    b = (torch.rand(count, generator=gen) + 0.2).cumsum(0).to(dtype)
    return w, b - b.mean()


def staircase(w, b): return Staircase(w, b, jump_levels(w))


@pytest.mark.parametrize("extrema,jumps", [(20, None), (60, None), (7.5, 15), (60, 90), (3, 1)])
@pytest.mark.parametrize("form", FORMS)
def test_starts_as_rounding(extrema, jumps, form):
    n = jumps or 2 * extrema
    if form.get("symmetric") and n % 2:
        with pytest.raises(StanhlicError, match="even number"): from_extrema(extrema, jumps, **form)
        return
    q, step = from_extrema(extrema, jumps, **form), 2 * extrema / n
    x = torch.randn(5000, generator=torch.Generator().manual_seed(0)) * extrema
    expected = -extrema + step * ((x + extrema) / step - 0.5).ceil().clamp(0, n)
    near = ((x + extrema) / step - 0.5 - ((x + extrema) / step - 0.5).round()).abs() < 1e-4
    assert torch.allclose(q.hard(x)[~near], expected[~near], atol=1e-4)
    assert q.num_levels == n + 1 == len(q.levels)


def test_tie_goes_down_and_soft_tends_to_hard():
    q = from_extrema(3, free=True)
    ties = q.thresholds.detach()
    assert torch.equal(q.index(ties), torch.arange(6, dtype=torch.int32))
    x = torch.linspace(-5, 5, 4001)
    away = (x[:, None] - ties).abs().amin(1) > 0.01
    assert (q.soft(x, 2000.0) - q.hard(x))[away].abs().max() < 1e-5
    assert torch.equal(q.soft(x, math.inf), q.hard(x))


@pytest.mark.parametrize("seed", range(6))
def test_fast_index_equals_bucketize(seed):
    w, b = uneven(120, seed)
    if seed == 5: b[60:] = b[60:] * 50 + (b[60] - b[60] * 50) + 1e-5   # too uneven for the lookup table
    if seed == 4: b = b[:1]                                            # one threshold
    inf = torch.full_like(b, math.inf)
    x = torch.cat([torch.randn(50_000) * 30, b, torch.nextafter(b, inf), torch.nextafter(b, -inf), inf[:1], -inf[:1]])
    assert torch.equal(cell_index(x, b), torch.bucketize(x, b, out_int32=True))


@pytest.mark.parametrize("beta", [0.5, 1, 3, 10, 200])
@pytest.mark.parametrize("shape", [(3000,), (2, 3, 5, 7), (0,), ()])
def test_soft_equals_definition(beta, shape):
    w, b = uneven()
    x = torch.randn(shape) * 10
    expected = stanh_sum(x.double(), w.double(), b.double(), beta)
    y = staircase(w, b).soft(x, beta)
    assert y.shape == x.shape and y.dtype == torch.float32
    assert torch.allclose(y.double(), expected, atol=2e-5)


@pytest.mark.parametrize("beta", [0.7, 3.0, 20.0])
@pytest.mark.parametrize("mode", ["soft", "ste"])
def test_gradients_equal_definition(beta, mode):
    w, b = (t.requires_grad_() for t in uneven(30, 3, torch.float64))
    x = (torch.randn(40_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 5).requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    fast = torch.autograd.grad((getattr(staircase(w, b), mode)(x, beta) * weight).sum(), (x, w, b))
    slow = torch.autograd.grad((stanh_sum(x, w, b, beta) * weight).sum(), (x, w, b))
    for f, s in zip(fast, slow): assert (f - s).abs().max() < 1e-6 * s.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck_through_raw_parameters(form):
    q = from_extrema(2, **form).double()
    x = torch.linspace(-3, 3, 11, dtype=torch.float64, requires_grad=True)

    def f(x, rw, rb): return torch.func.functional_call(Wrap(q), {"q.raw_jumps": rw, "q.raw_thresholds": rb}, (x,))

    class Wrap(torch.nn.Module):
        def __init__(self, q): super().__init__(); self.q = q
        def forward(self, x): return self.q.soft(x, 1.7)

    assert torch.autograd.gradcheck(f, (x, q.raw_jumps.detach().requires_grad_(), q.raw_thresholds.detach().requires_grad_()), atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 40, 121])
@pytest.mark.parametrize("form", ["ordered", "free"])
def test_round_trip_of_values(count, form):
    w, b = uneven(count)
    q = STanH(w, b, form)
    tolerance = 0 if form == "free" else 1e-5
    assert (q.jumps - w).abs().max() <= tolerance and (q.thresholds - b).abs().max() <= tolerance
    twin = STanH(torch.ones(count), torch.arange(count), form)
    twin.load_state_dict(q.state_dict())
    assert torch.equal(twin.levels, q.levels) and torch.equal(twin.thresholds, q.thresholds)


def test_symmetric_stays_symmetric_and_ordered_stays_ordered():
    for kind in ({"symmetric": True}, {}):
        q = from_extrema(10, **kind)
        with torch.no_grad():
            for p in q.parameters(): p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) * 3)
        assert (q.jumps > 0).all() and (q.thresholds.diff() >= 0).all() and (q.levels.diff() > 0).all()
        if kind:
            assert q.levels[10] == 0 and torch.equal(q.levels, -q.levels.flip(0)) and torch.equal(q.thresholds, -q.thresholds.flip(0))


def test_free_sorts_thresholds_but_never_permutes_jumps():
    w, b = torch.tensor([3.0, 1.0, 2.0]), torch.tensor([1.0, -1.0, 0.0])
    q = STanH(w, b, "free")
    assert torch.equal(q.jumps, w) and torch.equal(q.thresholds, torch.tensor([-1.0, 0.0, 1.0]))
    assert torch.equal(q.levels, torch.tensor([-3.0, 0.0, 1.0, 3.0]))


@pytest.mark.parametrize("w,b,form,message", [
    ([1.0, -1.0], [0.0, 1.0], "ordered", "positive"), ([1.0, 1.0], [1.0, 1.0], "ordered", "distinct"),
    ([1.0, math.nan], [0.0, 1.0], "free", "not finite"), ([1.0], [0.0, 1.0], "free", "one length"),
    ([1.0] * 3, [0.0, 1.0, 2.0], "symmetric", "even"), ([1.0], [0.0], "other", "unknown form")])
def test_refuses_in_one_line(w, b, form, message):
    with pytest.raises(StanhlicError, match=message) as e: STanH(torch.tensor(w), torch.tensor(b), form)
    assert "\n" not in str(e.value)


def test_interpolation_is_pure_and_exact_at_the_ends():
    q0, q1 = STanH(*uneven(40, 1)), STanH(*uneven(40, 2))
    before = copy.deepcopy(q0.state_dict())
    alphas = [i / 8 for i in range(9)]
    forward = [interpolate(q0, q1, a) for a in alphas]
    random.Random(0).shuffle(alphas)
    for a in alphas: assert torch.equal(interpolate(q0, q1, a).levels, forward[int(a * 8)].levels)
    assert all(torch.equal(before[k], v) for k, v in q0.state_dict().items())
    assert torch.equal(forward[0].thresholds, q0.thresholds) and torch.equal(forward[8].levels, q1.levels)
    middle = interpolate(from_extrema(20, symmetric=True), from_extrema(9, 40, symmetric=True), 0.3)
    assert middle.levels[20] == 0


def test_extended_indexes_invert_and_increase():
    w, b = uneven(20)
    q = staircase(w, b)
    k = torch.arange(-300, 321)
    values = q.dequantize(k)
    assert (values.diff() > 0).all()
    x = torch.linspace(-60, 60, 20_001)
    index = q.index(x, extend=True)
    assert (index.diff() >= 0).all() and index.min() < -5 and index.max() > 25
    inside = (index >= 0) & (index <= 20)
    assert torch.equal(index[inside], q.index(x)[inside])
    outer = ~inside
    assert ((q.dequantize(index) - x)[outer].abs() <= torch.where(x < 0, w[0], w[-1])[outer] * 1.5 + (q.levels[-1] - b[-1]).abs() + (q.levels[0] - b[0]).abs()).all()
    assert q.index(torch.tensor([1e30]), extend=True).item() < 2**31 - 1
    with pytest.raises(StanhlicError, match="not finite"): q.index(torch.tensor([math.inf]), extend=True)


def test_bfloat16_input_is_computed_in_float32():
    q = from_extrema(60)
    x = (torch.randn(1000) * 5).bfloat16().requires_grad_()
    y = q.ste(x, 5.0)
    y.sum().backward()
    assert y.dtype == torch.float32 and x.grad.dtype == torch.bfloat16 and torch.equal(y, q.hard(x.float()))


def test_memory_does_not_grow_with_levels():
    code = ("import resource, torch; torch.set_num_threads(1)\n"
            "from stanhlic.stanh.quantizer import from_extrema\n"
            "x = torch.randn(1_000_000, requires_grad=True); q = from_extrema(60)\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "q.soft(x, 3.0).sum().backward()\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)")
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown < 120_000   # KiB; the N·L form takes 480 MB for one temporary


def test_training_moves_a_quantizer_toward_the_data():
    torch.manual_seed(0)
    q, x = from_extrema(3, symmetric=True), torch.randn(20_000) * 0.7 + torch.randint(-2, 3, (20_000,)) * 0.02
    optimizer = torch.optim.Adam(q.parameters(), 0.02)
    first = (q.hard(x) - x).square().mean()
    for _ in range(60):
        optimizer.zero_grad(); (q.ste(x, 6.0) - x).square().mean().backward(); optimizer.step()
    assert (q.hard(x) - x).square().mean() < 0.8 * first


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_resume_to_the_same_numbers(name, tmp_path):
    schedule, twin = make_schedule(name), make_schedule(name)
    for _ in range(20): schedule.step(0.02)
    torch.save(schedule.state_dict(), tmp_path / "state.pt")
    twin.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert twin.beta == schedule.beta and [twin.step(0.02) for _ in range(20)] == [schedule.step(0.02) for _ in range(20)]


def test_gap_schedule_draws_do_not_touch_the_global_generator():
    torch.manual_seed(0); expected = torch.rand(3)
    torch.manual_seed(0); GapStochastic().step(0.1)
    assert torch.equal(torch.rand(3), expected)


def test_gap_shrinks_with_beta():
    x, q = torch.randn(20_000, generator=torch.Generator().manual_seed(0)) * 2, from_extrema(20)
    gaps = [gap(q, x, beta) for beta in (2.0, 10.0, 50.0, 250.0)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 0.005
