"""The picture on the front page: of the weights that ship, at equal bytes, small enough for a page."""
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stanhlic.datasets import sample_photograph
from stanhlic.errors import StanhlicError
from stanhlic.lab import classical, hero
from stanhlic.zoo import list_models

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = json.loads((ROOT / "figures/hero.json").read_text())


def test_it_is_of_the_weights_that_ship():
    shipped = {m["name"]: m["fingerprint"] for m in list_models()}
    assert shipped.get(NUMBERS["model"]) == NUMBERS["fingerprint"], "run `make hero`, then `make readme`"


def test_no_file_exceeds_the_budget_and_each_comes_near_it():
    sizes = [r["bytes"] for r in NUMBERS["table"]]
    assert len(sizes) == 4 and max(sizes) <= NUMBERS["at most"]["bytes"] < 1.05 * min(sizes)


def test_picture_is_small_and_as_wide_as_three_details():
    path = ROOT / "figures/hero.png"
    assert path.stat().st_size < 200_000
    assert Image.open(path).width == 3 * hero.TIMES * (hero.BOX[2] - hero.BOX[0]) + 2 * hero.EDGE


@pytest.mark.long
def test_drawn_again_it_says_the_same(tmp_path):
    hero.main(tmp_path / "hero")
    again = json.loads((tmp_path / "hero.json").read_text())
    for kept, made in zip(NUMBERS["table"], again["table"], strict=True):
        assert (made["codec"], made["bytes"]) == (kept["codec"], pytest.approx(kept["bytes"], rel=0.01))
        assert made["psnr"] == pytest.approx(kept["psnr"], abs=0.05)


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_largest_within(name):
    image = np.ascontiguousarray(sample_photograph()[:96, :96])
    data = hero.largest_within(name, image, 1500)
    assert len(data) <= 1500 and classical.decode(name, data).shape == image.shape
    assert any(1500 < len(classical.encode(name, image, q)) for q in range(1, 90))
    with pytest.raises(StanhlicError, match="no file of at most 20 bytes"): hero.largest_within(name, image, 20)
