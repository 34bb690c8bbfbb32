"""Progressive files: cut anywhere, fed in any portions, damaged, foreign."""
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from stanhlic.container import Header, pack, read_header, unpack_prefix
from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.sync import exact
from stanhlic.progressive import stream
from stanhlic.progressive.codec import ProgressiveCodec, base_end
from stanhlic.progressive.model import random_model
from stanhlic.progressive.networks import PROGRESSIVE_SMOKE
from stanhlic.progressive.stream import BLOCK_BYTES
from stanhlic.zoo import load_codec

torch.set_num_threads(1)
PHOTO = sample_photograph()[:590, :500]


@pytest.fixture(scope="module")
def codec(): return ProgressiveCodec(random_model(replace(PROGRESSIVE_SMOKE, rems=(10.0, 40.0))), "tiny")


@pytest.fixture(scope="module")
def analyzed(codec): return codec.analyze(PHOTO)


@pytest.fixture(scope="module")
def data(analyzed): return analyzed.file(analyzed.elements, crossover=0)


@pytest.fixture(scope="module")
def start(data):
    found = unpack_prefix(data)
    return base_end(found.header, found.count)


def test_size_is_the_information_plus_little(codec, analyzed, data, start):
    assert start - len(analyzed.base_chunk) <= 64 + 6
    assert (len(data) - start) / (analyzed.bits.sum() / 8) < 1.005
    assert abs(8 * len(data) / codec.estimate(analyzed) - 1) < 0.01


def test_any_portions_give_the_picture_of_the_prefix(codec, data, start):
    rng = np.random.default_rng(0)
    stops = np.unique([0, *rng.integers(start, len(data), 7), len(data)])
    d = codec.decoder()
    for low, high in zip(stops, stops[1:]):
        picture = d.feed(data[low:high]).image()
        assert np.array_equal(picture, codec.decode(data[:high]))
    assert d.complete


def test_every_prefix_holds_the_right_symbols(codec, analyzed, data, start):
    d, at, seen = codec.decoder(), 0, []
    for cut in [*range(start, len(data), 97), len(data)]:
        d.feed(data[at:cut]); at = cut
        d._advance()
        seen.append(d.elements)
        for number, symbols in enumerate(d._reader.symbols): assert np.array_equal(symbols, analyzed.steps[number][1][:len(symbols)])
    assert seen == sorted(seen) and seen[-1] == analyzed.elements
    decoded, held = np.append(0, analyzed.bits.cumsum())[seen[:-1]], 8.0 * (np.arange(start, len(data), 97) - start)
    assert (held - decoded).max() < 48 + 48 * (1 + len(data) // BLOCK_BYTES)  # a cut costs a few bytes, a block six


def test_networks_run_once(codec, data, start, monkeypatch):
    calls, real = [], codec.model.hyper
    monkeypatch.setattr(codec.model, "hyper", lambda *a: calls.append(1) or real(*a))
    d = codec.decoder()
    for cut in range(0, len(data), 1500): d.feed(data[cut:cut + 1500]).image() if cut + 1500 > start else d.feed(data[cut:cut + 1500])
    assert len(calls) == 2


def test_no_picture_below_the_base(codec, data, start):
    for cut in (0, 1, 4, 20, 50):
        with pytest.raises(StanhlicError): codec.decode(data[:cut])
    with pytest.raises(StanhlicError, match="100 more bytes"): codec.decode(data[:start - 100])
    with pytest.raises(StanhlicError, match="1 more bytes"): codec.decode(data[:start - 1])
    codec.decode(data[:start])


def test_flipped_bits(codec, data, start):
    rng = np.random.default_rng(1)
    for place in [*rng.integers(0, start, 12), start - 1]:
        broken = bytearray(data); broken[place] ^= 1 << rng.integers(8)
        with pytest.raises(StanhlicError): codec.decode(bytes(broken))
    for block in (0, 1):
        broken = bytearray(data); broken[start + block * (BLOCK_BYTES + 6) + rng.integers(2, 1000)] ^= 16
        with pytest.warns(UserWarning, match="damaged"): picture = codec.decode(bytes(broken))
        assert np.array_equal(picture, codec.decode(data[:start + block * (BLOCK_BYTES + 6)]))


def test_damage_found_late_takes_back_what_was_shown(codec, data, start):
    broken = bytearray(data); broken[start + 1000] ^= 1
    d = codec.decoder().feed(bytes(broken[:start + 3000]))
    d.image()
    assert np.array_equal(d.feed(bytes(broken[start + 3000:])).image(), codec.decode(data[:start])) and "damaged in chunk 2" in d.note


def on_another_machine(monkeypatch, noise):
    "Let every scale that is close to a border of two tables fall on the other side; returns a list of how many did"
    from stanhlic.priors import scale_indexes
    fallen, here = [], stream.agreed
    def there(scale, checksums=None):
        low, high = scale * (1 - noise), scale * (1 + noise)
        other = torch.where(scale_indexes(low) != scale_indexes(scale), low, torch.where(scale_indexes(high) != scale_indexes(scale), high, scale))
        fallen.append(int((other != scale).sum()))
        return here(other, checksums)
    monkeypatch.setattr(stream, "agreed", there)
    return fallen


def test_scales_that_fall_on_the_other_side_of_a_border_are_found(codec, data, start, monkeypatch):
    pictures = [codec.decode(data[:n]) for n in (start, (start + len(data)) // 2, len(data))]
    fallen = on_another_machine(monkeypatch, 2.0 ** -15)
    for n, picture in zip((start, (start + len(data)) // 2, len(data)), pictures):
        assert np.abs(codec.decode(data[:n]).astype(int) - picture).max() <= 1
    assert sum(fallen) > 20


def test_scales_further_away_are_refused(codec, data, monkeypatch):
    on_another_machine(monkeypatch, 0.01)
    with pytest.raises(StanhlicError, match="other scales"): codec.decode(data)


def test_another_kernel_reads_the_file(monkeypatch):
    shipped, picture = load_codec("progressive-compact", device="cpu"), sample_photograph(512)
    data = shipped.encode(picture)
    for part in (data, data[:len(data) * 3 // 4]):
        with torch.backends.mkldnn.flags(enabled=False): other = shipped.decode(part)
        assert np.abs(other.astype(int) - shipped.decode(part)).max() <= 1


def test_foreign_files(codec, data):
    other = ProgressiveCodec(codec.model, "other", fingerprint=b"another!")
    with pytest.raises(StanhlicError, match="needs the model"): other.decode(data)
    with pytest.raises(StanhlicError): codec.decode(b"\x89PNG" + data[4:])
    with pytest.raises(StanhlicError): codec.decode(data + b"more")


@pytest.mark.parametrize("ranking", ["global", "slice", "random", "channel"])
@pytest.mark.parametrize("closed", [False, True])
def test_file_is_the_model(ranking, closed):
    config = replace(PROGRESSIVE_SMOKE, ranking=ranking, closed_loop=closed, rems=(20.0,))
    codec, picture = ProgressiveCodec(random_model(config)), PHOTO[:128, :192]
    a = codec.analyze(picture)
    for quality in (0, 20, 100):
        d = codec.decoder().feed(a.file(len(a.steps[0][1]) if quality == 20 else a.elements * (quality == 100), crossover=0))
        with exact(): want = codec.model(torch.from_numpy(picture).permute(2, 0, 1)[None].float().div(255).contiguous(memory_format=torch.channels_last), quality=quality)["x_hat"]
        want = want[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        assert np.abs(d.image().astype(int) - want).max() <= 1      # rounding to 8 bit of nearly equal floats


@pytest.mark.parametrize("height, width", [(1, 1), (7, 200), (65, 64), (130, 3)])
def test_any_size(height, width):
    codec, picture = ProgressiveCodec(random_model(PROGRESSIVE_SMOKE)), PHOTO[100:100 + height, 100:100 + width]
    data = codec.encode(picture)
    assert codec.decode(data).shape == picture.shape
    codec.decode(data[:-1])


def test_qualities_and_targets(codec, analyzed):
    sizes = [len(codec.encode(analyzed, q)) for q in (0, 1, 10, 50, 100)]
    assert sizes == sorted(sizes)
    budget = (sizes[0] + sizes[-1]) // 2
    assert budget - 40 < len(codec.encode(analyzed, codec.quality_for(analyzed, target_bytes=budget))) <= budget
    with pytest.raises(StanhlicError, match="10 bytes is out of reach.* bytes$"): codec.quality_for(analyzed, target_bytes=10)
    with pytest.raises(StanhlicError, match="0.001 bpp is out of reach.* bpp$"): codec.quality_for(analyzed, target_bpp=0.001)
    goal = 8 * budget / (590 * 500)
    assert budget - 40 < len(codec.encode(analyzed, codec.quality_for(analyzed, target_bpp=goal))) <= budget
    with pytest.raises(StanhlicError): codec.encode(analyzed, 101)
    with pytest.raises(StanhlicError, match="uint8"): codec.encode(PHOTO.astype(float))


def test_describe_and_truncate(codec, data, start):
    facts = codec.describe(read_header(data))
    assert facts["quality"] == 100 and facts["checkpoints"] == [10.0, 40.0]
    assert codec.truncate(data, start) == data[:start] == codec.truncate(data[:-9], start)
    assert codec.cuts(data) == range(start, len(data) + 1) and not codec.cuts(data[:start - 1])
    with pytest.raises(StanhlicError, match="more bytes are needed"): codec.truncate(data[:start - 1], 10**9)
    with pytest.raises(StanhlicError, match="no layers"): codec.truncate(data, layers=1)
    with pytest.raises(StanhlicError, match="'stanh'"): codec.truncate(pack(Header("stanh", bytes(8), 9, 9, bytes(6)), [b"abc"]), 99)
    with pytest.raises(StanhlicError, match=str(start)): codec.truncate(data, start - 1)


def test_random_bytes_never_crash(codec, data):
    rng = np.random.default_rng(2)
    for _ in range(15):
        noise = bytearray(data[:int(rng.integers(1, len(data)))])
        for place in rng.integers(0, len(noise), 3): noise[place] = rng.integers(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                codec.decode(bytes(noise))
        except StanhlicError: pass
