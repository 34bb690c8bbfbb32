"""The layered codec: files of layers, cuts, incremental decoding, damage, truncation, targets."""
import warnings
from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
import torch

from stanhlic.container import Header, describe, pack, read_header, unpack
from stanhlic.entropy import encode_integers
from stanhlic.datasets import sample_photograph
from stanhlic.errors import CutFileWarning, StanhlicError
from stanhlic.images import to_tensor
from stanhlic.metrics import psnr
from stanhlic.rnn import codec as room
from stanhlic.rnn.codec import RnnCodec, read_block, truncate, write_block
from stanhlic.rnn.model import build_model
from stanhlic.rnn.networks import RNN_SMALL
from stanhlic.rnn.start import principal_start

SMALL = dict(width=0.0625, latent=8, hyper=8, latent_gain=1000.0, init_scale=3.0)
VARIANTS = {"hyper": {}, "bare": dict(hyperprior=False), "means": dict(mean_scale=True), "hidden1": dict(hidden_kernel=1), "two": dict(layers=2), "lean": asdict(RNN_SMALL)}


@cache
def make(name="hyper"):
    torch.manual_seed(0)
    model = build_model(SMALL | VARIANTS[name])
    if model.config.lean: principal_start(model, torch.cat([to_tensor(sample_photograph()[y:y + 128, 100:228]) for y in (0, 200)]), (0.001, 0.002, 0.004, 0.008))
    elif model.config.hyperprior: torch.nn.init.constant_(model.hdec.out.bias, 1.5)   # σ as large as y, as training would make it
    return RnnCodec(model, name)


@cache
def photo(height=100, width=150):
    return sample_photograph(320)[40:40 + height, 60:60 + width]


@cache
def coded(name="hyper"):
    """Layers of the photograph and its files of 1, 2, … layers."""
    a = make(name).analyze(photo())
    return a, [make(name).encode(a, layers=k) for k in range(1, make(name).layers + 1)]


def again(name="hyper"):
    """A codec built from the numbers alone."""
    twin = build_model(SMALL | VARIANTS[name])
    twin.load_state_dict(make(name).model.state_dict())
    return RnnCodec(twin, name)


def flipped(data, place): return data[:place] + bytes([data[place] ^ 8]) + data[place + 1:]


# %% round trips

@pytest.mark.parametrize("name", VARIANTS)
def test_layers_are_bit_identical(name):
    a, files = coded(name)
    other = again(name)
    for k, data in enumerate(files, 1):
        picture = other.decode(data)
        assert np.array_equal(picture, a.picture(k))
        assert np.array_equal(picture, other.decode(files[-1], layers=k))
        assert unpack(files[-1])[1][:len(unpack(data)[1])] == unpack(data)[1]


@pytest.mark.parametrize("name", ("hyper", "bare", "means", "lean"))
def test_symbols_come_back(name, monkeypatch):
    """ŷ and ẑ of the decoder equal the encoder's, every layer."""
    sent, got, write, read = [], [], room.write_block, room.read_block
    monkeypatch.setattr(room, "write_block", lambda k, *a: (sent.append(torch.as_tensor(k).float()), write(k, *a))[1])
    monkeypatch.setattr(room, "read_block", lambda *a: (got.append(read(*a)), got[-1])[1])
    again(name).decode(make(name).encode(photo()))
    assert len(sent) == len(got) == (4 if name == "bare" else 8)
    assert all(torch.equal(a, b) for a, b in zip(sent, got)) and sum(k.abs().sum() for k in sent) > 100


@pytest.mark.parametrize("height, width", ((1, 1), (63, 65), (100, 37), (64, 128)))
def test_any_size(height, width):
    a = make().analyze(photo()[:height, :width])
    picture = again().decode(make().encode(a, layers=2))
    assert picture.shape == (height, width, 3) and np.array_equal(picture, a.picture(2))


@pytest.mark.parametrize("name", ("hyper", "lean"))
def test_picture_is_what_the_model_says(name):
    """The codec's pictures are those of `model(x)` in evaluation, but for the double precision of σ."""
    from stanhlic.images import pad, to_array, unpad
    with torch.no_grad(): out = make(name).model(pad(to_tensor(photo())))
    for k, x_hat in enumerate(out["x_hat"], 1):
        assert np.abs(to_array(unpad(x_hat, 100, 150)).astype(int) - coded(name)[0].picture(k)).max() <= 1


def test_bf16_transforms_round_trip():
    fast = RnnCodec(again().model, precision="bf16")
    a = fast.analyze(photo())
    assert np.array_equal(fast.decode(fast.encode(a)), a.picture(4))


def test_states_are_reset_between_pictures():
    first = make().encode(photo())
    make().encode(photo()[::-1].copy())
    assert make().encode(photo()) == first == coded()[1][-1]


@pytest.mark.parametrize("name", ("hyper", "bare", "means", "lean"))
def test_estimate_and_real_bytes_agree(name):
    a, files = coded(name)
    for k, data in enumerate(files, 1):
        streams, bits = sum(describe(data)["chunks"]), make(name).estimate(a, layers=k)
        assert abs(8 * streams - bits) <= 0.01 * bits + 128 * 2 * k
        assert len(data) - streams <= 25 + 12 * k
        assert sum(a.layer(j + 1).map.sum() for j in range(k)) == pytest.approx(bits, rel=1e-4)


def test_nothing_costs_nothing():
    rows = np.zeros((1, 128, 1, 1), np.uint8)
    data = write_block(torch.zeros(rows.shape), rows, room.gaussian_tables())
    assert len(data) <= 8 and not read_block(data, rows, room.gaussian_tables()).any()


def test_values_beyond_the_tables_are_escaped():
    rows = np.full((50,), 40, np.uint8)
    k = torch.arange(50) * 1000 - 25000
    assert torch.equal(read_block(write_block(k, rows, room.gaussian_tables()), rows, room.gaussian_tables()), k.float())


def test_a_network_that_fails_is_refused():
    for value in (float("nan"), float("inf"), 1e12):
        with pytest.raises(StanhlicError, match="not finite"): write_block(torch.tensor([value]), np.zeros(1, np.uint8), room.gaussian_tables())


# %% quality and layers

def test_quality_chooses_layers():
    a, files = coded()
    assert [make().encode(a, quality=q) for q in (0, 20, 60, 100)] == files
    assert make().encode(a) == files[-1] and make().encode(a, layers=3) == files[2]
    assert [make().encode(a, quality=room.quality_of(k, 4)) for k in (1, 2, 3, 4)] == files
    for bad in (-1, 100.5):
        with pytest.raises(StanhlicError, match="outside 0 to 100"): make().encode(a, quality=bad)
    for bad in (0, 5):
        with pytest.raises(StanhlicError, match="choose 1 to 4"): make().encode(a, layers=bad)


def test_targets():
    (a, files), codec = coded(), make()
    at = lambda **target: room.layers_at(codec.quality_for(a, **target), 4)
    assert [at(target_bytes=len(f)) for f in files] == [1, 2, 3, 4] and at(target_bytes=len(files[2]) - 1) == 2
    assert at(target_bpp=8 * len(files[1]) / (100 * 150)) == 2
    quality = [psnr(photo(), a.picture(k)) for k in (1, 2, 3, 4)]
    assert at(target_psnr=quality[0]) == 1
    for target in (dict(target_bytes=10), dict(target_psnr=90.), dict(target_bpp=1e-6)):
        with pytest.raises(StanhlicError, match="out of reach"): codec.quality_for(a, **target)
    with pytest.raises(StanhlicError, match=f"0.01 bpp .* {8 * len(files[0]) / 15000:.6g} to {8 * len(files[3]) / 15000:.6g} bpp$"): codec.quality_for(a, target_bpp=0.01)
    with pytest.raises(StanhlicError, match="exactly one"): codec.quality_for(a)


def test_encoding_reuses_layers(monkeypatch):
    runs, codec = [], again()
    monkeypatch.setattr(codec, "run", lambda network, *a, plain=codec.run: (runs.append(network), plain(network, *a))[1])
    a = codec.analyze(photo())
    for k in (2, 4): codec.encode(a, layers=k)
    codec.estimate(a)
    assert [sum(n is m for n in runs) for m in (codec.model.enc, codec.model.henc, codec.model.dec)] == [4, 4, 3]


# %% pieces and cuts

def test_decoder_goes_on_and_repeats_nothing(monkeypatch):
    (a, files), codec, runs = coded(), again(), []
    monkeypatch.setattr(codec, "run", lambda network, *a, plain=codec.run: (runs.append(network), plain(network, *a))[1])
    d, data = codec.decoder(), files[-1]
    for i in range(len(data)):
        d.feed(data[i:i + 1])
        if d.layers: assert np.array_equal(d.image(), a.picture(d.layers))
    assert (d.layers, d.declared, d.note, len(runs)) == (4, 4, None, 4)
    assert np.array_equal(d.image(2), a.picture(2)) and len(runs) == 4


def test_cut_at_any_byte():
    (a, files), codec = coded(), again()
    for size in [*range(0, 60), *range(60, len(files[-1]), 37), *(len(f) + i for f in files[:-1] for i in (-1, 0, 1))]:
        part, complete = files[-1][:size], sum(size >= len(f) for f in files)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if complete == 0:
                with pytest.raises(StanhlicError, match="cut|empty|no picture yet"): codec.decode(part)
                continue
            assert np.array_equal(codec.decode(part), a.picture(complete))
        assert len(said) == 1 and said[0].category is CutFileWarning and f"inside layer {complete + 1} of 4" in str(said[0].message)


def test_whole_files_and_wanted_layers_give_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make().decode(coded()[1][-1])
        make().decode(coded()[1][-1][:-20], layers=2)


def test_more_layers_than_there_are():
    files = coded()[1]
    with pytest.raises(StanhlicError, match="3 layers asked for, the file has 2"): make().decode(files[1], layers=3)
    with pytest.raises(StanhlicError, match="cut inside layer 4"): make().decode(files[3][:-1], layers=4)
    with pytest.raises(StanhlicError, match="choose 1 to 2"): make().decode(files[1], layers=0)


def test_notes_say_what_is_missing():
    (_, files), note = coded(), lambda data: make().decoder().feed(data).note
    assert note(files[3]) is None and note(files[3][:len(files[1])]) == "the file is cut inside layer 3 of 4; the 2 layers before it are shown"
    assert note(files[3][:len(files[1]) - 1]) == "the file is cut inside layer 2 of 4; the layer before it is shown"
    assert note(flipped(files[3], len(files[2]) + 20)) == "layer 4 fails its checksum: the 3 layers before it are shown; fetch the file again for the rest"
    assert note(flipped(files[3], 60)) == "layer 1 fails its checksum, so there is no picture; fetch the file again"


@pytest.mark.parametrize("name", ("hyper", "bare"))
def test_bytes_that_the_first_layer_lacks(name):
    """Exact once the last size of the layer has come, before that never too many; the same when bytes come one by one."""
    files, codec, d = coded(name)[1], make(name), make(name).decoder()
    one, exactly = len(files[0]), []
    for n in range(1, one):
        d.feed(files[3][n - 1:n])
        with pytest.raises(StanhlicError) as said: d.image()
        if "header" in str(said.value): continue
        assert d.note == str(said.value) == codec.decoder().feed(files[3][:n]).note
        number = int(d.note.split("at least " if "at least" in d.note else "yet: ")[1].split()[0])
        assert 0 < number <= one - n and ("at least" in d.note or number == one - n)
        exactly.append("at least" not in d.note)
    assert exactly == sorted(exactly) and sum(exactly) > 40 and d.note == "no picture yet: 1 more byte completes layer 1"


# %% truncate

@pytest.mark.parametrize("name", VARIANTS)
def test_cuts_are_the_sizes_of_the_files(name):
    files = coded(name)[1]
    assert room.cuts(files[-1]) == [len(f) for f in files] and room.cuts(files[-1][:len(files[0]) + 1]) == [len(files[0])]
    assert room.cuts(files[-1][:len(files[0]) - 1]) == []


def test_truncate_by_layers_and_bytes():
    files = coded()[1]
    for k, data in enumerate(files, 1):
        assert truncate(files[-1], layers=k) == data == truncate(files[-1], num_bytes=len(data))
        if k > 1: assert truncate(files[-1], num_bytes=len(data) - 1) == files[k - 2]
    assert make().truncate(files[3][:-1], num_bytes=10**6) == files[2]
    assert truncate(coded("bare")[1][3], layers=1) == coded("bare")[1][0]


@pytest.mark.parametrize("options, why", ((dict(layers=5), "the file has 4"), (dict(num_bytes=30), "not one layer"), (dict(), "exactly one"),
                                          (dict(layers=1, num_bytes=9), "exactly one"), (dict(layers=0), "choose 1 to 4")))
def test_truncate_refuses(options, why):
    with pytest.raises(StanhlicError, match=why): truncate(coded()[1][3], **options)


def test_truncate_refuses_other_files():
    with pytest.raises(StanhlicError, match="no layers to keep"): truncate(pack(Header("stanh", bytes(8), 9, 9, bytes(6)), [b"abc"]), layers=1)
    with pytest.raises(StanhlicError, match="cut in layer 4"): truncate(coded()[1][3][:-1], layers=4)
    with pytest.raises(StanhlicError): truncate(b"", layers=1)


# %% damage

def test_every_flipped_bit_is_noticed():
    data, rng = coded()[1][1], np.random.default_rng(0)
    for place in [*range(0, 34), *rng.integers(34, len(data), 30)]:
        broken = bytearray(data); broken[place] ^= 1 << rng.integers(8)
        with warnings.catch_warnings():
            warnings.simplefilter("error")   # nor may it pass for a cut
            with pytest.raises((StanhlicError, UserWarning)): make().decode(bytes(broken))


def test_damage_in_a_later_layer_spares_the_first():
    a, files = coded()
    broken = flipped(files[3], len(files[2]) + 20)
    with pytest.warns(UserWarning, match="layer 4 fails its checksum") as said: picture = make().decode(broken)
    assert np.array_equal(picture, a.picture(3)) and not issubclass(said[0].category, CutFileWarning)
    assert np.array_equal(make().decode(broken, layers=3), a.picture(3))
    with pytest.raises(StanhlicError, match="layer 4 fails its checksum, but 4 are asked for; fetch the file again or take 3 layers$"): make().decode(broken, layers=4)
    with pytest.raises(StanhlicError, match="layer 1 fails its checksum, so there is no picture"): make().decode(flipped(files[3], 60))


def test_foreign_files_are_named():
    data = coded()[1][0]
    with pytest.raises(StanhlicError, match="needs the model"): RnnCodec(make().model, fingerprint=b"12345678").decode(data)
    with pytest.raises(StanhlicError, match="not a .slic"): make().decode(b"PNG" * 40)
    with pytest.raises(StanhlicError, match="not a .slic"): make().decode(b"PNG")
    with pytest.raises(StanhlicError, match="codec 'stanh'"): make().decode(pack(Header("stanh", bytes(8), 9, 9, bytes(6)), [b"abc"]))
    with pytest.raises(StanhlicError, match="follow the last chunk"): make().decode(data + b"x")


def forged(layers, chunks, side=64): return pack(Header("rnn", bytes(8), side, side, bytes(layers)), chunks)


@pytest.mark.parametrize("layers, chunks", (([1], [b"\0", b""]), ([1], [b"", b""]), ([1], [b"\0" * 40, b"\0" * 60]), ([1], [b"\0"]), ([], [b"\0", b"\0"]),
                                            ([5], [b"\0"] * 10), ([0], []), ([2], [b"\0"] * 2), ([1], [b"\xff" * 99, b"\xff" * 99]), ([1], [encode_integers(np.arange(9)), b"\0" * 9])))
def test_forged_files_with_sound_checksums(layers, chunks):
    with pytest.raises(StanhlicError): make().decode(forged(layers, chunks))


def test_drift_of_the_hyper_decoder_is_caught():
    drifted = again()
    with torch.no_grad(): drifted._hdec.out.bias += 0.2
    with pytest.raises(StanhlicError, match="other scales"): drifted.decode(coded()[1][3])


def test_other_tables_are_caught():
    other = again("bare")
    with torch.no_grad(): other._priors[1]._bias0 += 0.3
    assert np.array_equal(other.decode(coded("bare")[1][3], layers=1), coded("bare")[0].picture(1))
    with pytest.raises(StanhlicError): other.decode(coded("bare")[1][3])


def test_not_a_picture():
    for bad in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32)):
        with pytest.raises(StanhlicError, match="uint8"): make().encode(bad)


# %% what a file says

def test_describe():
    assert make().describe(read_header(coded()[1][2])) == {"layers": 3, "model_layers": 4, "quality": 66.667, "hyperprior": True}
    assert room.quality_of(1, 1) == 100 and room.layers_at(50, 1) == 1


def test_other_numbers_of_threads():
    """The scales do not depend on how many threads compute them."""
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert np.abs(again().decode(coded()[1][3]).astype(int) - coded()[0].picture(4)).max() <= 1
    finally: torch.set_num_threads(threads)


def test_a_weight_file_that_does_not_fit_is_refused():
    from types import SimpleNamespace
    with pytest.raises(StanhlicError, match="do not fit"): RnnCodec.from_weights(SimpleNamespace(header={"name": "odd", "config": SMALL | {"layers": 2}}, tensors=make().model.state_dict(), fingerprint=bytes(8)))
