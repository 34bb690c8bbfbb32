"""A codec inside somebody else's program: forked, spawned, pickled, copied, and under whatever that program has told torch."""
import copy
import os
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from stanhlic.datasets import sample_photograph
from stanhlic.zoo import load_codec

MODELS = ["stanh-compact", "rnn-compact", "progressive-compact"]


@pytest.fixture(scope="module")
def picture(): return sample_photograph(64)


def program(folder, text, *words, **env):
    """What a program of its own prints, run from a file, as `spawn` needs it."""
    (folder / "program.py").write_text(textwrap.dedent(text))
    done = subprocess.run([sys.executable, "-W", "ignore", folder / "program.py", *words], capture_output=True, text=True, env=os.environ | {"OMP_WAIT_POLICY": "passive"} | env)  # threads that wait take no time
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


POOL = """
import multiprocessing, sys
import numpy as np, torch
import stanhlic
image = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
how, *names = sys.argv[1:]

def work(codec, name, data):
    codec, alone = codec or mine[name], stanhlic.load(name, "cpu")
    same = alone.encode(image) if name == "rnn-compact" else data  # its residuals differ in the last bit with other threads
    return codec.encode(image) == same and bool((codec.decode(data) == alone.decode(data)).all())

if __name__ == "__main__":
    torch.set_num_threads(2)
    fresh, mine = ({n: stanhlic.load(n, "cpu") for n in names} for _ in range(2))
    jobs = []
    for n in names:
        data = mine[n].encode(image)
        mine[n].decode(data)
        jobs += [(c, n, data) for c in ([None] * 4 if how == "fork" else [fresh[n], mine[n]])]
    with multiprocessing.get_context(how).Pool(2) as pool: print(*pool.starmap(work, jobs, 1))
    print(torch.get_num_threads())
"""


@pytest.mark.long
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_forked_workers_of_a_process_with_threads(tmp_path):
    """The parent computes with two threads; without care each child waits for them for good."""
    assert program(tmp_path, POOL, "fork", *MODELS, OMP_NUM_THREADS="2") == ["True"] * 4 * len(MODELS) + ["2"]


@pytest.mark.long
def test_spawned_workers_get_a_codec_before_and_after_its_use(tmp_path): assert program(tmp_path, POOL, "spawn", *MODELS) == ["True"] * 2 * len(MODELS) + ["2"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("again", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))], ids=["deepcopy", "pickle"])
def test_copies(name, again, picture):
    codec = load_codec(name, "cpu")
    before = again(codec)
    data = codec.encode(picture)
    shown, analysis, decoder = codec.decode(data), codec.analyze(picture), codec.decoder().feed(data[:-1]).feed(data[-1:])
    for other in (before, again(codec)): assert other.encode(picture) == data and (other.decode(data) == shown).all() and repr(other) == repr(codec)
    assert codec.encode(again(analysis)) == data and (again(decoder).image() == shown).all()
    assert (decoder.image() == shown).all() and (again(decoder).image() == shown).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_programs_default_type(name, dtype, picture):
    codec = load_codec(name, "cpu")
    data, refined = codec.encode(picture), codec.encode(picture, effort=1)
    shown = codec.decode(data)
    torch.set_default_dtype(dtype)
    try:
        for c in (codec, load_codec(name, "cpu")):
            assert c.encode(picture) == data and (c.decode(data) == shown).all() and {p.dtype for p in c.model.parameters()} == {torch.float32}
            c.encode(picture, target_bytes=len(data) + 1); c.estimate(picture)
        assert codec.encode(picture, effort=1) == refined and torch.get_default_dtype() == dtype
    finally: torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", MODELS)
def test_the_programs_default_device(name, picture):
    """`meta` holds no values: whatever is created on it by mistake is an exception."""
    codec = load_codec(name, "cpu")
    data, refined = codec.encode(picture), codec.encode(picture, effort=1)
    shown = codec.decode(data)
    torch.set_default_device("meta")
    try:
        for c in (codec, load_codec(name, "cpu")):
            assert c.encode(picture) == data and (c.decode(data) == shown).all()
            c.encode(picture, target_bytes=len(data) + 1); c.estimate(picture); c.psnr_at(picture); c.decoder().feed(data).image()
        assert codec.encode(picture, effort=1) == refined and torch.zeros(1).is_meta
    finally: torch.set_default_device(None)


def test_gradients_may_be_off_or_on_and_stay_so(picture):
    codec = load_codec("stanh-compact", "cpu")
    data = codec.encode(picture)
    for mode in (torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            assert codec.encode(picture) == data and np.array_equal(codec.decode(data), load_codec("stanh-compact", "cpu").decode(data))
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


# %% what a command needs

@pytest.mark.parametrize("name", MODELS)
def test_info_and_truncate_need_no_torch_and_no_network(name, picture, tmp_path):
    data = load_codec(name, "cpu").encode(picture)
    for part, path in ((data, tmp_path / "a.slic"), (data[:-5], tmp_path / "b.slic")): path.write_bytes(part)
    cut = not name.startswith("stanh")
    commands = [["info", "a.slic"], ["info", "a.slic", "--json"], *([["info", "b.slic"], ["truncate", "a.slic", "c.slic", "--bytes", str(len(data) - 1)]] if cut else [])]
    for words in commands:
        probe = f"""
            import sys; sys.argv = {['stanhlic', *words]!r}
            from stanhlic.cli import main
            try: main()
            except SystemExit as e: assert not e.code
            loaded = [m for m in ("torch", "safetensors", "stanhlic.codec", "stanhlic.backbone") if m in sys.modules]
            assert not loaded, loaded"""
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(probe)], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0 and (name in done.stdout or words[0] == "truncate"), done.stderr[-500:]


@pytest.mark.parametrize("name", MODELS)
def test_what_a_file_says_without_its_network_is_what_its_codec_says(name, picture):
    from stanhlic.container import read_header, unpack_prefix
    from stanhlic.zoo import describe_file, file_rules
    codec = load_codec(name, "cpu")
    for quality in (0, 37, 100):
        data = codec.encode(picture, quality)
        said = describe_file(data)
        assert codec.describe(read_header(data)).items() <= said.items() and said["model"] == name and said["note"] is None
    if codec.truncatable:
        for n in range(len(data) // 2, len(data), 97):
            said, decoder = describe_file(data[:n]), codec.decoder().feed(data[:n])
            assert file_rules(codec.kind).remark(unpack_prefix(data[:n]), n) == decoder.note and said["note"] == (decoder.note or said["note"]) and said["note"]
