"""The published numbers: rows that parse and are in bounds, curves that occur once."""
import csv
from collections import defaultdict

import pytest

from stanhlic.errors import StanhlicError
from stanhlic.lab.curves import against, archive, published, published_folder
from stanhlic.lab.tables import percent

FILES = sorted(published_folder().glob("*.csv"))
FIELDS = ["method", "dataset", "metric", "bpp", "value", "kind", "source"]
KINDS = {"classical", "fixed-rate", "variable-rate", "progressive", "overfitted", "bound", "anchor", "derivation", "interpolated", "mixed", "manual", "layered"}
BOUNDS = {"psnr": (15, 55), "ms-ssim-db": (2, 32)}


def curves(rows):
    """{(method, dataset, metric): [(bpp, value), ...]}"""
    found = defaultdict(list)
    for r in rows: found[r["method"], r["dataset"], r["metric"]].append((float(r["bpp"]), float(r["value"])))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_rows_parse_and_are_in_bounds(path):
    with path.open(encoding="utf-8", newline="") as f:
        reader = csv.DictReader(f)
        rows = list(reader)
    assert reader.fieldnames == FIELDS and rows
    for r in rows:
        low, high = BOUNDS[r["metric"]]
        assert 0.005 < float(r["bpp"]) < 5 and low < float(r["value"]) < high, r
        assert r["kind"] in KINDS and len(r["source"]) > 10 and all(r.values()) and None not in r, r


def test_no_curve_stands_twice():
    """Neither one curve in two files, nor the same points under two names."""
    homes, alike = defaultdict(set), defaultdict(set)
    for r in archive(): homes[r["method"], r["dataset"], r["metric"]].add(r["file"])
    for (method, dataset, metric), points in curves(archive()).items():
        if not method.startswith("stanh-"): assert len(points) == len(set(points)), f"{method} on {dataset}: a point occurs twice"  # interpolated ones saturate
        alike[dataset, metric, tuple(sorted((round(b, 4), round(v, 2)) for b, v in points))].add(method)
    assert [k for k, files in homes.items() if len(files) > 1] == []
    assert [names for names in alike.values() if len(names) > 1] == []


def test_rate_buys_quality():
    """The best point of a curve is at a higher rate than its worst."""
    assert [k for k, points in curves(archive()).items() if max(points, key=lambda p: p[1])[0] <= min(points, key=lambda p: p[1])[0]] == []


@pytest.mark.parametrize("method", ["vtm", "bpg", "av1", "bmshj2018-hyperprior", "mbt2018", "cheng2020-attn", "zou22", "elic", "tcm-large", "qarv", "joint-qvrf",
                                    "gained-ms-hyperprior", "scr", "evc", "gain-units", "stanh-85", "stanh-79", "stanh-6a", "stanh-3a", "stanh-manual"])
def test_the_usual_anchors_are_there(method): assert len(published(method).bpp) >= 4


@pytest.mark.parametrize("dataset", ["kodak", "clic2020-professional-valid", "tecnick", "jpegai-test"])
def test_stanh_is_there_on_its_four_data_sets(dataset):
    assert len(published("stanh-85", dataset).bpp) == 7 and len(published("stanh-79", dataset, interpolated=True).bpp) == 79
    assert published("stanh-85", dataset).ms_ssim is not None


@pytest.mark.parametrize("tested, reference, value", [("stanh-6a", "zou22-reference", 0.45), ("stanh-5a", "zou22-reference", 0.73), ("stanh-3a", "zou22-reference", 0.66),
                                                      ("stanh-1a", "zou22-reference", 10.68), ("gain-units", "vtm-rebuttal", 4.49), ("scr", "vtm-rebuttal", 17.80)])
def test_bd_rates_recomputed_before_come_out_again(tested, reference, value):
    assert against(published(tested), published(reference), method="cubic")["value"] == pytest.approx(value, abs=0.06)


def test_roles_of_the_points_in_fig_3():
    """Six anchors; five and a derivation; of the array that three panels share, two anchors and nothing else for certain; one."""
    roles = defaultdict(list)
    for r in archive(): roles[r["method"]].append((r["kind"], r["bpp"], r["value"]))
    kinds = {m: [kind for kind, _, _ in sorted(roles[m], key=lambda p: p[1])] for m in ("stanh-6a", "stanh-5a", "stanh-3a", "stanh-1a")}
    assert kinds["stanh-6a"] == ["anchor"] * 6 and kinds["stanh-5a"] == ["derivation"] + ["anchor"] * 5
    assert kinds["stanh-3a"] == ["mixed"] * 3 + ["anchor", "mixed", "anchor"] and kinds["stanh-1a"].count("anchor") == 1
    assert all(p in roles["stanh-6a"] for m in ("stanh-5a", "stanh-3a") for p in roles[m] if p[0] == "anchor")


def test_unknown_curve():
    with pytest.raises(StanhlicError, match="no published curve 'nothing' on kodak"): published("nothing")
    assert percent(None) is None
