"""Progressive files: cut anywhere, fed in any portions, damaged, foreign."""
import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from stanhlic.container import Header, pack, read_header, unpack_prefix
from stanhlic.entropy import write_varint
from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.images import Picture
from stanhlic.sync import exact
from stanhlic.progressive import stream as streams
from stanhlic.container import guard, seal, unguard
from stanhlic.progressive.codec import ProgressiveCodec
from stanhlic.progressive.file import base_end
from stanhlic.progressive.model import random_model
from stanhlic.progressive.networks import PROGRESSIVE_SMOKE
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
    return base_end(unpack_prefix(data))


@pytest.fixture(scope="module")
def stream(data, start): return start + len(write_varint(unpack_prefix(data[:start + 5]).declared))  # offset of the residual's first byte


def test_size_is_the_information_plus_little(codec, analyzed, data, start):
    assert start - len(analyzed.base_chunk) <= 64 + 6
    assert (len(data) - start) / (analyzed.bits.sum() / 8) < 1.012
    assert abs(8 * len(data) / codec.estimate(analyzed) - 1) < 0.01


def test_what_the_checks_cost():
    for size, percent in ((2_000, 0.8), (10_000, 0.8), (50_000, 0.4), (100_000, 0.25), (1_000_000, 0.07)):
        assert 0 < len(guard(bytes(size), 1)) / size - 1 < percent / 100


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 513, 9000])
def test_every_cut_of_a_guarded_stream(size):
    plain = np.random.default_rng(size).bytes(size)
    whole = guard(plain, 3)
    assert unguard(whole, 3).stream == plain
    for cut in range(0, len(whole) + 1, 1 if size < 600 else 7):
        found, sealed = unguard(whole[:cut], 3), seal(whole[:cut], 3)
        assert found.sound and plain.startswith(found.stream) and len(found.stream) - found.checked <= max(256, found.checked / 32)
        again = unguard(sealed, 3)
        assert len(sealed) <= cut and again.sound and again.end == len(sealed) and again.checked == len(again.stream) >= cut - 2 * cut / 256 - 6


def test_golden_checks():
    "A change here is a change of format: raise container.VERSIONS"
    data = guard(bytes(range(256)) * 40, 7)
    assert (data[256:258].hex(), len(data), zlib.crc32(data)) == ("c1d3", 10318, 2993484229)


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
    assert (held - decoded).max() < 64 + 16 * (1 + len(data) // 256)  # a cut costs a few bytes, a check two


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


def test_flipped_bits(codec, data, start, stream):
    rng = np.random.default_rng(1)
    for place in [*rng.integers(0, start, 12), start - 1]:
        broken = bytearray(data); broken[place] ^= 1 << rng.integers(8)
        with pytest.raises(StanhlicError): codec.decode(bytes(broken))
    for place, sound in ((100, start), (2000, stream + 7 * 258)):
        broken = bytearray(data); broken[stream + place] ^= 16
        with pytest.warns(UserWarning, match="damaged"): picture = codec.decode(bytes(broken))
        assert np.array_equal(picture, codec.decode(data[:sound]))


def test_damage_found_late_takes_back_what_was_shown(codec, data, stream):
    broken = bytearray(data); broken[stream + 1000] ^= 1
    d = codec.decoder().feed(bytes(broken[:stream + 1010]))
    d.image()
    assert "cannot be tested" in d.note
    assert np.array_equal(d.feed(bytes(broken[stream + 1010:])).image(), codec.decode(data[:stream + 3 * 258])) and "damaged behind byte" in d.note


def on_another_machine(monkeypatch, noise):
    "Let every scale that is close to a border of two tables fall on the other side; returns a list of how many did"
    from stanhlic.priors import scale_indexes
    fallen, here = [], streams.agreed
    def there(scale, checksums=None):
        low, high = scale * (1 - noise), scale * (1 + noise)
        other = torch.where(scale_indexes(low) != scale_indexes(scale), low, torch.where(scale_indexes(high) != scale_indexes(scale), high, scale))
        fallen.append(int((other != scale).sum()))
        return here(other, checksums)
    monkeypatch.setattr(streams, "agreed", there)
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


# %% lost bytes

@pytest.fixture(scope="module")
def small(codec):
    "A small picture, analyzed; its file, with alpha and metadata around the residual; all symbols in coding order"
    a = codec.analyze(Picture(PHOTO[200:392, 100:292], PHOTO[:192, :192, 0], {"icc": bytes(300), "xmp": bytes(range(256))}))
    return a, a.file(a.elements, crossover=0), np.concatenate([symbols for _, symbols in a.steps])


@st.composite
def damages(draw, size):
    "A function that loses, doubles, changes or inserts bytes, once or twice, and may cut what is left"
    changes = []
    for _ in range(draw(st.integers(1, 2))):
        at, n = draw(st.integers(0, size)), draw(st.integers(1, 32))
        kind, other, bit = draw(st.sampled_from(["gap", "double", "flip", "splice"])), draw(st.integers(0, size)), draw(st.integers(0, 7))
        changes.append((kind, at, n, other, bit))
    keep = draw(st.one_of(st.just(size + 99), st.integers(0, size)))
    def harm(data):
        for kind, at, n, other, bit in changes:
            if kind == "gap": data = data[:at] + data[at + n:]
            elif kind == "double": data = data[:at + n] + data[at:]
            elif kind == "splice": data = data[:at] + data[other:]
            elif at < len(data): data = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1:]
        return data[:keep]
    return harm


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.data())
def test_nothing_wrong_is_shown_without_a_word(codec, small, draw):
    "Whatever is lost: symbols that were tested are right, and others are shown only with a note"
    a, whole, truth = small
    data = draw.draw(damages(len(whole)))(whole)
    found = {}
    for strict in (True, False):
        d = codec.decoder(strict).feed(data)
        try: d._advance(); found[strict] = np.concatenate([truth[:0], *(d._reader.symbols if d._reader else [])]), d.note
        except StanhlicError as e: assert "\n" not in str(e); continue
        assert np.array_equal(d._base, a.state.base)
        if strict or found[strict][1] is None or "cannot be tested" not in found[strict][1]: assert np.array_equal(found[strict][0], truth[:len(found[strict][0])])
        if not whole.startswith(data): assert found[strict][1] is not None or len(found[strict][0]) < len(truth)
    assert len(found) in (0, 2)
    if found: assert len(found[False][0]) >= len(found[True][0])


def test_a_byte_lost_in_a_whole_file_is_always_said(codec, small):
    "The case that was silent: a gap makes a file look cut"
    a, whole, truth = small
    shown = []
    for place in range(base_end(unpack_prefix(whole)), len(whole), 43):
        d = codec.decoder().feed(whole[:place] + whole[place + 1:])
        d._advance()
        assert d.note is not None
        shown.append("cannot be tested" in d.note)
    assert sum(shown) <= 1 + 300 // 43  # only where the file ends before the next check


@pytest.mark.parametrize("strict", [False, True])
def test_a_cut_at_any_byte_decodes(codec, small, strict):
    a, whole, truth = small
    found = unpack_prefix(whole)
    start, d, at, counts = base_end(found), codec.decoder(strict), 0, []
    beside = start + sum(len(write_varint(len(found.extras[k]))) + len(found.extras[k]) + 4 for k in ("icc", "alpha"))  # where the residual begins
    for cut in [*range(start, len(whole), 11), len(whole)]:
        d.feed(whole[at:cut]); at = cut
        d._advance()
        counts.append(d.elements)
        symbols = np.concatenate([truth[:0], *d._reader.symbols])
        assert np.array_equal(symbols, truth[:len(symbols)]) and not d.damaged
        assert strict <= ("cannot be tested" not in (d.note or ""))
        assert ("alpha" in (d.note or "")) == (cut < beside)
    assert counts == sorted(counts) and counts[-1] == len(truth) and d.note is None and d.complete


def test_a_shorter_file_is_tested_to_its_end(codec, small):
    a, whole, truth = small
    start = base_end(unpack_prefix(whole))
    for size in range(start, len(whole), 97):
        short = codec.truncate(whole, size)
        d = codec.decoder().feed(short)
        d._advance()
        assert len(short) <= size and "cannot be tested" not in (d.note or "") and not d.damaged
        assert codec.truncate(short, len(short) + 5) == short
        strict = codec.decoder(strict=True).feed(short); strict._advance()
        assert strict.elements == d.elements


def test_damage_ends_a_shorter_file(codec, small):
    a, whole, truth = small
    broken = whole[:-900] + whole[-890:]
    short = codec.truncate(broken, len(broken) - 1)
    assert whole.startswith(short) and len(short) == codec.cuts(broken)[-1]
