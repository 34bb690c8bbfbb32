"""What a codec's user must not need: libraries of the extras, absent here by force, are asked for in one line and only where they are used."""
import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.long
EXTRAS = ("accelerate", "matplotlib", "pytorch_msssim", "papermill", "ipykernel", "nbclient", "IPython", "compressai", "torchvision", "pandas", "nbdev", "fastcore")
WITHOUT = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS}))\n"  # an import of any of them fails as if it were not installed


def run(code, *args):
    done = subprocess.run([sys.executable, "-c", WITHOUT + code, *map(str, args)], capture_output=True, text=True)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def test_codecs_need_no_extra(models, photo, tmp_path):
    code = """if True:
        import stanhlic.stanh.plugin, stanhlic.stanh.importers, stanhlic.progressive.importers, stanhlic.view, stanhlic.cli
        import stanhlic.rnn.codec, stanhlic.progressive.codec, stanhlic.stanh.codec
        from stanhlic.images import read_image
        from stanhlic.zoo import load_codec
        codec, picture = load_codec("tiny", "cpu"), read_image(sys.argv[1])
        print(codec.decode(codec.encode(picture, 100)).shape)
    """
    assert run(code, photo) == (0, "(128, 160, 3)", "")


def test_eval_leaves_similarity_out_and_says_so(models, photo, tmp_path):
    code = "from stanhlic.cli import main; main()"
    status, out, err = run(code, "eval", "--model", "tiny", "--images", photo.parent, "--qualities", "50", "--out", tmp_path / "r.json", "--device", "cpu")
    assert status == 0 and "PSNR" in out and err.splitlines()[-1].endswith('pip install "stanhlic[figures]"')


MISSING = {
    "import stanhlic.training": "train",
    "import stanhlic.lab.plots": "figures",
    "from stanhlic.cli import main; sys.argv[1:] = 'reproduce stanh/storage'.split(); main()": "reproduce",
    "from stanhlic.datasets import demo_images, sample_photograph; sample_photograph()": "figures",
    "import numpy as np; from stanhlic.metrics import ms_ssim; ms_ssim(*np.zeros((2, 200, 200, 3), np.uint8))": "figures",
    "from stanhlic.stanh.plugin import import_compressai; import_compressai()": "compressai",
    "from stanhlic.cli import main; sys.argv[1:] = 'train stanh base --out nowhere'.split(); main()": "train",
}


@pytest.fixture(scope="module")
def last_words():
    """What each of these ends with, one after another in one process."""
    code = f"""if True:
        import contextlib, io, json
        def ends(code):
            with contextlib.redirect_stderr(io.StringIO()) as err:
                try: exec(code, {{"sys": sys}})
                except SystemExit as e: return e.code, err.getvalue()
                except Exception as e: return 1, str(e)
            return 0, ""
        print(json.dumps({{code: ends(code) for code in {list(MISSING)!r}}}))
    """
    status, out, err = run(code)
    assert status == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("code", MISSING)
def test_a_missing_extra_is_one_line_that_names_it(last_words, code):
    status, said = last_words[code]
    last = said.splitlines()[-1]
    assert status == 1 and "is not installed" in last and f'pip install "stanhlic[{MISSING[code]}]"' in last


def test_a_missing_module_of_our_own_is_no_missing_extra():
    from stanhlic.errors import needs
    with pytest.raises(ModuleNotFoundError, match="stanhlic.nowhere"), needs("train"): import stanhlic.nowhere  # noqa: F401
