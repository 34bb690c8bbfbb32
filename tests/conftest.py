"""What the tests share: the command line as a user runs it, and a picture that is always there."""
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# two cores are shared by two workers; the console script is next to the interpreter
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH", "")) if p)  # also where nothing is installed
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def pytest_addoption(parser): parser.addoption("--slow", action="store_true", help="also run what takes minutes")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Long tests begin, then those with a browser, so that no worker ends with one alone; a file's tests share a worker, and so its fixtures, where they name no group of their own."""
    items.sort(key=lambda item: (not item.get_closest_marker("long"), "browser" not in item.fixturenames))
    for item in items:
        if not item.get_closest_marker("xdist_group"): item.add_marker(pytest.mark.xdist_group(item.path.stem))
        if item.get_closest_marker("slow") and not config.getoption("--slow"): item.add_marker(pytest.mark.skip(reason="takes minutes; give --slow"))


def called(*words, cwd=None):
    """The command line in this process; what it returns looks like a process of its own, which would cost seconds."""
    from stanhlic.cli import main
    out, err, end = io.StringIO(), io.StringIO(), None
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["stanhlic", *map(str, words)])
        if cwd: patch.chdir(cwd)
        try: main()
        except SystemExit as e: end = e
    return subprocess.CompletedProcess(words, end.code or 0, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def cli():
    """`cli("info", path)` runs the command line in this process and gives stdout, stderr, returncode."""
    return called


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    """A PNG of 160 x 128 pixels cut from the photograph inside matplotlib."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    with get_sample_data("grace_hopper.jpg") as f: Image.open(f).convert("RGB").crop((160, 40, 320, 168)).save(path)
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A folder with two tiny models of random numbers, known by name (`tiny`, `other`) to this process and the command line."""
    import torch
    from stanhlic.backbone import Zou22, Zou22Config
    from stanhlic.stanh.model import StanhModel, model_config, rounding_point
    from stanhlic.modelfile import save_weights
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("tiny", "other")):
        torch.manual_seed(seed)
        net = Zou22(Zou22Config(width=16, latent=16, slices=2, support=1, context=(16,), heads=2, units=1))
        net.g_a[7].weight.data *= 20  # so that there is something to quantize
        model = StanhModel([net], [rounding_point(extrema=(60 * step, 20), step=step) for step in (4, 2, 1)])
        save_weights(folder / f"{name}.safetensors", model.state_dict(),
                     {"system": "stanh", "name": name, "config": model_config(model), "provenance": {"seed": seed}})
    os.environ["STANHLIC_MODELS"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def slic(models, photo, tmp_path_factory):
    """A .slic file of `photo` at quality 50 by `tiny`."""
    from stanhlic.images import read_image
    from stanhlic.zoo import load_codec
    path = tmp_path_factory.mktemp("slic") / "photo.slic"
    path.write_bytes(load_codec("tiny", "cpu").encode(read_image(photo), 50))
    return path


@pytest.fixture
def no_curve(monkeypatch):
    """A run ends without its picture; test_training_scale.py looks at one."""
    monkeypatch.setattr("stanhlic.training.draw_curve", lambda out: None)


# %% a browser, for the pages that this project writes

DRIVER, BROWSER = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--disable-dev-shm-usage")


class Browser:
    """As much of WebDriver as the tests need, over HTTP."""

    def __init__(self, port, profile):
        self.base = f"http://127.0.0.1:{port}/session"
        options = {"binary": BROWSER, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        self.base += "/" + self("", {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}, "timeouts": {"script": None, "pageLoad": 10 ** 7}}}})["sessionId"]

    def __call__(self, path, body=None, method=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as answer: return json.load(answer)["value"]

    def run(self, script): return self("/execute/sync", {"script": "return " + script, "args": []})


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if not (DRIVER and BROWSER): pytest.skip("needs chromium and chromedriver, one of which is not installed here")
    driver = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = next(found[1] for line in driver.stdout if (found := re.search(r"started successfully on port (\d+)", line)))
        try: session = Browser(port, tmp_path_factory.mktemp("profile"))
        except urllib.error.HTTPError as e: pytest.skip("chromium does not start here: " + json.load(e)["value"]["message"].splitlines()[0][:200])
        yield session
        session("", method="DELETE")
    finally: driver.terminate(); driver.wait()
