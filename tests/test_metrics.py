"""Metrics: conventions, known answers of Bjøntegaard's measures, refusals."""
import math

import numpy as np
import pytest

from stanhlic.errors import StanhlicError
from stanhlic.metrics import bd_psnr, bd_rate, bpp, ms_ssim, ms_ssim_db, pareto, psnr, to_db

RATE = np.array([0.11, 0.23, 0.4, 0.71, 1.2, 1.9])
QUALITY = np.array([27.9, 30.4, 32.3, 34.8, 37.0, 39.1])
METHODS = ("pchip", "akima", "cubic")


def test_psnr_matches_the_definition():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 256, (2, 31, 17, 3), dtype=np.uint8)
    mse = np.mean((a.astype(float) - b.astype(float)) ** 2)
    assert psnr(a, b) == pytest.approx(10 * np.log10(255**2 / mse), abs=1e-12)
    assert psnr(a, a) == math.inf and psnr(a, b) == psnr(b, a)


@pytest.mark.parametrize("b", [np.zeros((8, 9, 3)), np.zeros((8, 9), np.uint8), np.zeros((9, 8, 3), np.uint8), [[0]]])
def test_psnr_refuses_what_is_not_a_pair(b):
    with pytest.raises(StanhlicError): psnr(np.zeros((8, 9, 3), np.uint8), b)


def test_ms_ssim_ranges_and_smallest_size():
    a = np.random.default_rng(1).integers(0, 256, (161, 161, 3), dtype=np.uint8)
    assert ms_ssim(a, a) == pytest.approx(1, abs=1e-6)
    assert 0 <= ms_ssim(a, 255 - a) < 0.1
    assert ms_ssim_db(a, 255 - a) == pytest.approx(to_db(ms_ssim(a, 255 - a)))
    with pytest.raises(StanhlicError, match="161 pixels"): ms_ssim(a[1:], a[1:])


def test_bpp(): assert bpp(1000, 100, 80) == 1.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("factor", [0.5, 0.9, 1.0, 1.7])
def test_scaled_rates(method, factor):
    order = np.random.default_rng(2).permutation(len(RATE))  # order of the points does not matter
    got = bd_rate(RATE, QUALITY, factor * RATE[order], QUALITY[order], method)
    assert got.value == pytest.approx(100 * (factor - 1), abs=1e-8)
    assert (got.low, got.high, got.overlap) == (QUALITY[0], QUALITY[-1], 1.0)


@pytest.mark.parametrize("method", METHODS)
def test_shifted_quality(method):
    got = bd_psnr(RATE, QUALITY, RATE, QUALITY - 0.7, method)
    assert got.value == pytest.approx(-0.7, abs=1e-9)
    assert (got.low, got.high) == pytest.approx((RATE[0], RATE[-1]))


def test_partial_overlap_warns_and_reports():
    with pytest.warns(UserWarning, match="of the shorter curve"): got = bd_rate(RATE, QUALITY, RATE, QUALITY + 8)
    assert got.low == QUALITY[0] + 8 and got.high == QUALITY[-1] and got.overlap < 0.5


@pytest.mark.parametrize("rate, quality, say", [
    (RATE[:3], QUALITY[:3], "at least 4"), (RATE, QUALITY[::-1], "pareto"), (RATE, QUALITY + 30, "share no interval"),
    (-RATE, QUALITY, "not positive"), (RATE, np.r_[QUALITY[:-1], np.inf], "not finite"), (RATE, QUALITY[:-1], "6 rates and 5")])
def test_refusals_are_one_line(rate, quality, say):
    with pytest.raises(StanhlicError, match=say) as e: bd_rate(RATE, QUALITY, rate, quality)
    assert "\n" not in str(e.value)


def test_fixed_interval():
    assert bd_rate(RATE, QUALITY, 1.1 * RATE, QUALITY, interval=(30, 35))[1:3] == (30, 35)
    assert bd_psnr(RATE, QUALITY, RATE, QUALITY + 1, interval=(0.3, 0.9))[:3] == pytest.approx((1, 0.3, 0.9))
    with pytest.raises(StanhlicError, match="extrapolated"): bd_psnr(RATE, QUALITY, RATE, QUALITY, interval=(0.05, 0.9))


def test_pareto_makes_any_cloud_usable():
    rng = np.random.default_rng(3)
    r, q = pareto(rng.uniform(0.1, 2, 200), rng.uniform(28, 40, 200))
    assert (np.diff(r) > 0).all() and (np.diff(q) > 0).all()
    assert pareto(RATE, QUALITY)[0].tolist() == RATE.tolist()
