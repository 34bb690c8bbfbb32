"""The bench: records, targets, what is left out, and the JSON of a short run."""
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import stanhlic
from stanhlic.lab import bench
from stanhlic.errors import StanhlicError


pytestmark = pytest.mark.long
def test_importing_the_bench_is_light():
    names = bench.fresh("import sys, stanhlic.lab.bench; print(*[m for m in ('torch', 'compressai', 'torchac', 'matplotlib') if m in sys.modules])")
    assert names.split() == []


def test_runs_are_interleaved():
    seen = []
    times = bench.in_turn({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, repeats=3)
    assert "".join(seen) == "abababab" and times["a"]["n"] == 3 and times["a"]["unit"] == "s"


def test_json_run(capsys):
    import torch
    before = torch.get_num_threads()
    result = bench.run(True, repeats=1, threads=before + 1, only=["quantizer"])
    assert torch.get_num_threads() == before
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(result))
    assert set(printed) == {"format", "machine", "repeats", "picture", "models", "results", "targets"}
    assert printed["results"]["quantizer"]["soft naive / ours"]["unit"] == "x"
    assert all(t["met"] is None for t in printed["targets"])


def test_table_run_names_what_is_left_out(capsys, monkeypatch):
    def absent(s): raise bench.LeftOut("no such library")
    monkeypatch.setitem(bench.MEASUREMENTS, "absent", absent)
    assert bench.run(only=["absent"], repeats=1)["results"]["absent"] == {"left out": "no such library"}
    assert "no such library" in capsys.readouterr().out
    with pytest.raises(StanhlicError, match="unknown measurement"): bench.run(only=["nothing"])


def test_every_coder_returns_its_symbols_at_the_same_size():
    problem = bench.coder_input(30_000)
    sizes = []
    for build in (bench.our_coder, bench.compressai_coder, bench.torchac_coder):
        try: coder = build(*problem)
        except bench.LeftOut: continue
        assert np.array_equal(coder["read"](), problem[0])
        sizes.append(len(coder["data"]))
    assert len(sizes) >= 2 and max(sizes) < 1.01 * min(sizes)


def test_torchac_is_optional(monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(bench.LeftOut, match="pip install torchac"): bench.torchac_coder(*bench.coder_input(100))


def test_memory_is_that_of_the_process():
    held = np.ones(150 << 20, np.uint8)
    here, child = bench.peak_memory(), float(bench.fresh("from stanhlic.lab.bench import peak_memory; print(peak_memory())"))
    assert here > held.nbytes / 1e6 and child < here
    if sys.platform == "linux": assert child < 100


def test_random_codecs_are_the_same_every_time():
    picture = np.zeros((64, 64, 3), np.uint8)
    assert bench.random_codec().encode(picture) == bench.random_codec().encode(picture)


def test_targets_name_real_measurements():
    assert {name for name, *_ in bench.TARGETS} <= set(bench.MEASUREMENTS)
    met = bench.check_targets({"entropy": {"torchac / ours write, float": bench.record(9, "x"), "ours write": bench.record(0.1, "s")}})
    assert {(t["item"], t["met"]) for t in met if t["value"]} == {("torchac / ours write, float", True), ("ours write", False)}


def test_pace_begins_with_the_second_job_of_each_process():
    assert bench.pace([(1, 0.0, 9.0), (2, 0.0, 8.0), (1, 9.0, 10.0), (2, 9.0, 11.0), (1, 10.0, 13.0)]) == 3 / 4


@pytest.mark.slow
def test_many_pictures():
    found = bench.run(repeats=1, only=["many"], quiet=True)["results"]["many"]
    assert set(found) == {"1 process", "2 processes"} and all(r["unit"] == "pictures/s" and r["value"] > 0 for r in found.values())


def test_a_device_that_is_not_here_is_refused():
    with pytest.raises(StanhlicError, match="cuda:99 is not available"): bench.run(device="cuda:99", only=["quantizer"], quiet=True)


def test_a_ratio_is_as_uncertain_as_its_times():
    slow, fast = bench.spread([4.0, 5.0, 6.0]), bench.spread([1.0, 2.0, 2.5])
    assert bench.ratio_spread(slow, fast) == [4 / 2.5, 5 / 2, 6 / 1] and bench.ratio_spread(bench.record(1.0, "s"), fast) == []


def test_cold_starts_are_measured_in_multiples_of_torch(tmp_path, monkeypatch):
    from stanhlic.lab import startup
    monkeypatch.setattr(startup, "MODELS", ())
    rows = startup.main(str(Path(stanhlic.__file__).resolve().parent.parent), tmp_path / "s.json", 1)["rows"]
    assert [r["command"] for r in rows] == ["python", "import torch", "stanhlic --help"] and rows[1]["multiple"] == rows[1]["multiple_before"] == 1
    with pytest.raises(StanhlicError, match="no such model"): startup.processor_seconds("from stanhlic import load; load('nowhere/x')")
