"""Measuring: pictures, files decoded by a fresh process, means, and what is refused."""
import math
from types import SimpleNamespace

import numpy as np
import pytest

from stanhlic.errors import NotEnoughMemory, StanhlicError
from stanhlic.evaluate import (QUALITIES, SCHEMA, _check_end, _damage, _fresh, _places, _test_picture, decode_folder, environment, evaluate, load_images,
                               read_results, self_test, write_results)
from stanhlic.images import write_image
from stanhlic.metrics import psnr
from stanhlic.zoo import load_codec


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with two pictures."""
    folder, whole = tmp_path_factory.mktemp("pictures"), _test_picture()
    for name, side in (("a", 96), ("b", 64)): write_image(folder / f"{name}.png", whole[:side, :2 * side])
    return folder


@pytest.fixture(scope="module")
def result(models, pictures): return evaluate("tiny", pictures, qualities=(0, 100), device="cpu", progress=False)


def test_images_come_from_folders_and_lists(pictures):
    found = load_images(pictures)
    assert [(name, array.shape) for name, array in found] == [("a.png", (96, 192, 3)), ("b.png", (64, 128, 3))] and load_images(found) == found
    with pytest.raises(StanhlicError, match="no images"): load_images([])
    with pytest.raises(StanhlicError, match="no such folder"): load_images(pictures / "nowhere")


@pytest.mark.long
def test_a_fresh_process_decodes_a_folder_or_says_why_not(models, pictures, tmp_path):
    codec, (_, picture) = load_codec("tiny", "cpu"), load_images(pictures)[1]
    (tmp_path / "one.slic").write_bytes(codec.encode(picture, 50))
    decoded, seconds = decode_folder(tmp_path, "tiny", "cpu")["one"]
    assert np.array_equal(decoded, codec.decode((tmp_path / "one.slic").read_bytes())) and seconds > 0
    (tmp_path / "two.slic").write_bytes(b"SLIC")
    with pytest.raises(StanhlicError, match="cut inside its header"): decode_folder(tmp_path, "tiny", "cpu")
    with pytest.raises(StanhlicError, match="no .slic file"): decode_folder(pictures, "tiny")


def test_a_killed_process_is_one_line():
    code = _fresh(["import os, signal; os.kill(os.getpid(), signal.SIGKILL)"], print, None)
    with pytest.raises(NotEnoughMemory, match=r"killed \(signal 9\)"): _check_end(code, "")


def test_memory_is_blamed_for_kills_alone():
    with pytest.raises(StanhlicError, match="ended by SIGTERM") as e: _check_end(-15, "")
    assert not isinstance(e.value, NotEnoughMemory)


def test_places():
    assert _places(SimpleNamespace(layers=0)) == QUALITIES
    assert [_places(SimpleNamespace(layers=k)) for k in (1, 3)] == [(100,), (0, 50, 100)]


def test_means_are_those_of_the_files(result):
    rows, means = result["extras"]["per_image"], result["results"]
    assert tuple(means) == SCHEMA and [(r["image"], r["quality"]) for r in rows] == [("a.png", 0), ("a.png", 100), ("b.png", 0), ("b.png", 100)]
    assert rows[0]["bpp"] == 8 * rows[0]["bytes"] / (96 * 192) and means["bpp"][0] == pytest.approx((rows[0]["bpp"] + rows[2]["bpp"]) / 2)
    assert means["bpp"][1] > means["bpp"][0] and result["extras"]["bpp-estimated"][1] == pytest.approx(means["bpp"][1], rel=0.2)
    assert means["ms-ssim-rgb"] == [None, None], "the pictures are too small for it"
    assert set(environment()) == set(result["extras"]["environment"])


def test_results_come_back_and_other_files_are_refused(result, models, tmp_path):
    write_results(tmp_path / "r.json", result)
    assert read_results(tmp_path / "r.json")["results"] == result["results"]
    with pytest.raises(StanhlicError, match="not JSON"): read_results(models / "tiny.safetensors")
    (tmp_path / "other.json").write_text('{"results": []}')
    with pytest.raises(StanhlicError, match="not a rate-distortion result"): read_results(tmp_path / "other.json")


@pytest.mark.parametrize("model, qualities, words", [("tiny", (50, 101), "outside 0 to 100"), ("giant", (50,), "unknown model"), ("tiny", (), "at least one"), ("tiny", (50, 50), "each quality once")])
def test_refusals(models, pictures, model, qualities, words):
    with pytest.raises(StanhlicError, match=words): evaluate(model, pictures, qualities, progress=False)


def test_damage_is_counted(models):
    data = load_codec("tiny", "cpu").encode(_test_picture()[:64, :64], 50)
    assert _damage(data) == 0


def test_a_model_that_cannot_be_loaded_is_a_failed_row(models):
    row, = self_test("cpu", ["giant"])
    assert not row["ok"] and "unknown model" in row["detail"]


def test_the_picture_of_the_self_test_holds_something():
    picture = _test_picture()
    assert picture.dtype == np.uint8 and picture.shape == (200, 256, 3) and picture.std() > 30 and math.isfinite(psnr(picture, picture[::-1].copy()))
