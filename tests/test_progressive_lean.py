"""Progressive files of lean parts, whose elements are sent in stages of finer steps: cut anywhere, on another machine, in strips, refined."""
import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

import stanhlic.codec as ground
from stanhlic import strips
from stanhlic.container import unpack_prefix
from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.priors import scale_indexes
from stanhlic.progressive import stream as streams
from stanhlic.progressive.codec import ProgressiveCodec
from stanhlic.progressive.file import RANKINGS, base_end, describe_params
from stanhlic.progressive.lean import PROGRESSIVE_LEAN, PROGRESSIVE_LEAN_SMOKE
from stanhlic.progressive.model import LeanModel, model_config, random_model
from stanhlic.progressive.networks import PROGRESSIVE_SMOKE

torch.set_num_threads(1)
PHOTO = sample_photograph()[:190, :300]
pytestmark = pytest.mark.filterwarnings("ignore:the file is cut")


@pytest.fixture(scope="module")
def codec():
    known = {"stages": [{"system": "progressive", "stage": "first", "settings": {"lmbda": [0.002, 0.03]}}]}
    return ProgressiveCodec(random_model(PROGRESSIVE_LEAN_SMOKE), "tiny", header={"provenance": known})


@pytest.fixture(scope="module")
def analyzed(codec): return codec.analyze(PHOTO)


@pytest.fixture(scope="module")
def data(analyzed): return analyzed.file(analyzed.elements, crossover=0)


@pytest.fixture(scope="module")
def start(data): return base_end(unpack_prefix(data))


def test_size():
    with torch.device("meta"): assert sum(p.numel() for p in LeanModel(PROGRESSIVE_LEAN).parameters()) == 5_375_536


def test_elements_of_all_stages(codec, analyzed, data):
    n = 16 * 12 * 20
    assert analyzed.elements == n * 20 // 100 + n and [len(s) for _, s in analyzed.steps] == [n * 20 // 100, n]
    stage, symbols = analyzed.steps[-1]
    value = (torch.from_numpy(symbols - streams.RANGE)) * stage.state.step + stage.state.mean.flatten()[torch.from_numpy(stage.order)]
    assert (analyzed.target.flatten()[torch.from_numpy(stage.order)] - value).abs().max() <= 0.125 + 1e-4  # within half a step of the last stage
    assert abs(8 * len(data) / codec.estimate(analyzed) - 1) < 0.03


@pytest.mark.parametrize("quality", [0, 3, 100 / 6, 40, 100])
def test_what_a_file_says_and_shows(codec, quality):
    a = codec.analyze(PHOTO)
    data = codec.encode(a, quality)
    assert np.array_equal(codec.decode(data), codec.picture(a, codec.position_at(quality, a)))
    said = describe_params(unpack_prefix(data).header, model_config(codec.model))
    assert abs(said["quality"] - quality) < 0.05 and said == codec.describe(unpack_prefix(data).header)


def test_every_prefix_holds_the_right_symbols(codec, analyzed, data, start):
    d, at, seen = codec.decoder(), 0, []
    for cut in [*range(start, len(data), max(1, len(data) // 60)), len(data)]:
        d.feed(data[at:cut]); at = cut
        d._advance(); seen.append(d.elements)
        for number, symbols in enumerate(d._reader.symbols): assert np.array_equal(symbols, analyzed.steps[number][1][:len(symbols)])
    assert seen == sorted(seen) and seen[-1] == analyzed.elements
    assert np.array_equal(d.image(), analyzed.picture(analyzed.elements))


def test_a_cut_shows_what_arrived(codec, analyzed, data, start):
    for cut in np.linspace(start, len(data), 6).astype(int):
        d = codec.decoder().feed(data[:cut])
        assert np.array_equal(d.image(), analyzed.picture(d.elements))
    with pytest.raises(StanhlicError, match="1 more bytes"): codec.decode(data[:start - 1])


def on_another_machine(monkeypatch, noise):
    "Let scales that are close to a border of two tables fall on the other side"
    here = streams.agreed
    def there(scale, checksums=None):
        moved = scale * (1 - noise)
        return here(torch.where(scale_indexes(moved) != scale_indexes(scale), moved, scale), checksums)
    monkeypatch.setattr(streams, "agreed", there)


def test_close_calls_are_settled_and_others_refused(codec, data, monkeypatch):
    whole = codec.decode(data)
    with monkeypatch.context() as m:
        on_another_machine(m, 2.0 ** -16)
        assert np.abs(codec.decode(data).astype(int) - whole).max() <= 1
    on_another_machine(monkeypatch, 0.01)
    with pytest.raises(StanhlicError, match="other scales"): codec.decode(data)


def test_flipped_bits(codec, data, start):
    rng = np.random.default_rng(1)
    for place in [*rng.integers(0, start, 8), start - 1]:
        broken = bytearray(data); broken[place] ^= 1 << rng.integers(8)
        with pytest.raises(StanhlicError): codec.decode(bytes(broken))
    broken = bytearray(data); broken[(start + len(data)) // 2] ^= 4
    with pytest.warns(UserWarning, match="damaged"): codec.decode(bytes(broken))


def test_transforms_in_pieces_give_the_same_bytes(codec, data, monkeypatch):
    whole = codec.decode(data)
    monkeypatch.setattr(ground, "STRIP", int(codec.memory * 30_000))
    assert codec.piece < PHOTO.shape[0] * PHOTO.shape[1]
    a = codec.analyze(PHOTO)
    assert a.file(a.elements, crossover=0) == data and np.array_equal(codec.decode(data), whole)


def test_entropy_networks_in_rows(codec, data, monkeypatch):
    whole = codec.decode(data)
    monkeypatch.setattr(strips, "POSITIONS", 100)
    assert np.abs(codec.decode(data).astype(int) - whole).max() <= 1


@pytest.mark.parametrize("quality", [0, 10, 100])
def test_effort_lowers_the_loss(codec, quality):
    from stanhlic.refine import relative, true_loss
    a = codec.analyze(PHOTO[:96, :120])
    n = codec.position_at(quality, a)
    stops = codec.relaxation(a, n).stops
    b = ground.refine(codec, a, n, 8)
    assert relative(true_loss(codec, b, stops), true_loss(codec, a, stops)) <= 1
    data = codec.encode(b, quality)
    assert np.array_equal(codec.decode(data), codec.picture(b, n))
    codec.decode(data[:codec.cuts(data)[0]])


def test_from_tensors_alone(codec):
    again = LeanModel.from_state_dict(codec.model.state_dict())
    assert again.config == PROGRESSIVE_LEAN_SMOKE and all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), codec.model.state_dict().values()))


@pytest.mark.parametrize("ranking", RANKINGS)
def test_every_order_sends_each_stage_whole_and_no_more(codec, ranking):
    model = copy.copy(codec.model)
    model.config = replace(model.config, ranking=ranking)
    other = ProgressiveCodec(model, "tiny")
    flat = np.full((128, 192, 3), 90, np.uint8)  # equal scales throughout each channel: any threshold is a tie
    a = other.analyze(flat)
    assert [len(s) for _, s in a.steps] == model.stage_counts(a.state.mean.numel())
    assert np.array_equal(other.decode(a.file(a.elements)), other.picture(a, a.elements))


@pytest.mark.parametrize("config", [PROGRESSIVE_LEAN_SMOKE, replace(PROGRESSIVE_SMOKE, rems=(10.0, 40.0))])
def test_states_that_are_not_kept(config, monkeypatch):
    codec = ProgressiveCodec(random_model(config), "tiny")
    kept = codec.analyze(PHOTO)
    monkeypatch.setattr("stanhlic.progressive.codec.KEPT", 0)
    a = codec.analyze(PHOTO)
    assert [stage.state for stage, _ in a.steps] == [None] * len(kept.steps) and torch.equal(a.state.scale, kept.state.scale)
    assert a.file(a.elements) == kept.file(a.elements)
    for n in (0, 500, a.elements // 2, a.elements): assert np.array_equal(a.picture(n), kept.picture(n))


def test_a_stream_read_to_its_end_lets_its_states_go(codec, analyzed, data):
    d = codec.decoder().feed(data)
    d._advance()
    assert d._reader.spent and d._reader.start is None and [stage.state is None for stage in d._reader.stages] == [True, False]
    picture = d.image()
    assert d._reader is None and np.array_equal(d.image(), picture) and np.array_equal(picture, analyzed.picture(analyzed.elements))


def test_what_is_refused_once_is_refused_again(codec, data, monkeypatch):
    d = codec.decoder().feed(data)
    with monkeypatch.context() as m:
        begin = streams.begin_stage
        def second_fails(model, state, number, *rest):
            if number: raise StanhlicError("it does not fit")
            return begin(model, state, number, *rest)
        m.setattr(streams, "begin_stage", second_fails)
        for _ in range(2):
            with pytest.raises(StanhlicError, match="does not fit"): d.image()
    assert np.array_equal(d.image(), codec.decode(data))
