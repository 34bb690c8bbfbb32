"""Data sets: manifests, search order, checks, and downloads that resume, against a server on this machine."""
import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from stanhlic import datasets
from stanhlic.datasets import demo_images, download, families, fetch, find_dataset, has_dataset, is_file_of, list_datasets, load_manifest, pixel_hash, sample_photograph, search_folders
from stanhlic.errors import StanhlicError
from stanhlic.images import write_image

DATA = {f"a{i}.bin": np.random.default_rng(i).bytes(3000 + i) for i in range(3)}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *a): pass
    def do_GET(self):
        s = self.server
        data = s.data.get(self.path.strip("/"))
        want = self.headers.get("Range")
        s.asked.append(want)
        if s.mute: s.end.wait(s.mute)
        if data is None: return self.send_error(404)
        if s.fail: s.fail -= 1; return self.send_error(503)
        start = int(want[6:-1]) if want and s.ranges else 0
        if start >= len(data): return self.send_error(416)
        self.send_response(206 if start else 200)
        if start: self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        rest = data[start:][: s.cut]
        for i in range(0, len(rest), 100 if s.slow else 1 << 20):
            s.end.wait(s.slow)
            self.wfile.write(rest[i:][: 100 if s.slow else 1 << 20])


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    s = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    s.data, s.asked, s.fail, s.ranges, s.cut, s.slow, s.mute, s.end = dict(DATA), [], 0, True, None, 0, 0, threading.Event()
    s.url = f"http://127.0.0.1:{s.server_port}"
    threading.Thread(target=s.serve_forever, daemon=True).start()
    yield s
    s.end.set(); s.shutdown(); s.server_close()


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A data set of three files, an empty machine."""
    files = [{"path": k, "size": len(v), "sha256": hashlib.sha256(v).hexdigest(), "url": f"http://127.0.0.1:9/{k}"} for k, v in DATA.items()]
    monkeypatch.setattr(datasets, "load_manifest", lambda name: {"name": "toy", "files": files, "url": "http://127.0.0.1:9/{path}"})
    monkeypatch.setenv("STANHLIC_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("STANHLIC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return files


def entry(name): return {"path": name, "size": len(DATA[name]), "sha256": hashlib.sha256(DATA[name]).hexdigest()}


def test_manifests_are_complete():
    assert list_datasets() == ["clic", "kodak", "tecnick", "train"]
    for name, n in (("kodak", 24), ("train", 1386)):
        m = load_manifest(name)
        assert m["license"] and m["origin"] and len(m["files"]) == len({f["path"] for f in m["files"]}) == n
        assert all(len(f["sha256"]) == 64 and f["size"] > 0 and "/" not in f["path"] for f in m["files"])
    assert load_manifest("kodak")["files"][3]["url"].endswith("/kodim04.png")
    assert {f["path"].split("-")[0] for f in m["files"]} == set(m["families"])
    with pytest.raises(StanhlicError, match="unknown data set"): load_manifest("../kodak")


def test_the_training_set_says_how_it_was_built(cli, tmp_path, monkeypatch):
    """Collections with origin, license, counts and reduction, and what is not known; where it is missing, what else to do."""
    rows = families("train")
    assert [(r["family"], r["files"]) for r in rows] == [("bsds", 500), ("imn", 680), ("cid", 206)] and sum(r["bytes"] for r in rows) == sum(e["size"] for e in load_manifest("train")["files"])
    assert all(r[k] for r in rows for k in ("title", "license", "origin", "address", "made", "unknown")) and families("kodak") == []
    for name in ("STANHLIC_DATA", "STANHLIC_CACHE"): monkeypatch.setenv(name, str(tmp_path))
    done = cli("fetch", "train", cwd=tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "--data FOLDER" in done.stderr
    assert all(w in done.stdout for w in ("1,386 pictures", "680 files", "reduced to 60 %", "CC BY-SA", "unknown", "github.com/EliSchwartz/imagenet-sample-images"))


def test_sets_known_by_their_number(tmp_path, monkeypatch):
    """Without hashes of the files a folder counts if it has so many pictures; an archive is checked by its own."""
    monkeypatch.setenv("STANHLIC_DATA", str(tmp_path)); monkeypatch.setenv("STANHLIC_CACHE", str(tmp_path / "cache")); monkeypatch.chdir(tmp_path)
    assert not has_dataset("clic") and not has_dataset("tecnick")
    with pytest.raises(StanhlicError, match="stanhlic fetch clic"): find_dataset("clic")
    with pytest.raises(StanhlicError, match="testimages.zip"): find_dataset("tecnick")
    (tmp_path / "packed").mkdir()
    with zipfile.ZipFile(tmp_path / "packed/a.zip", "w") as z:
        for name in ("valid/x.png", "valid/y.png", "valid/.hidden.png", "../out.png", "readme.txt"): z.writestr(name, b"picture")
    data = (tmp_path / "packed/a.zip").read_bytes()
    toy = {"name": "toy", "count": 3, "files": [], "archive": {"url": (tmp_path / "packed/a.zip").as_uri(), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}}
    monkeypatch.setattr(datasets, "load_manifest", lambda name: toy)
    assert [p.name for p in find_dataset("toy", download=True)] == ["out.png", "x.png", "y.png"] and not (tmp_path / "out.png").exists() and has_dataset("toy")


def test_search_order_and_completeness(toy, tmp_path):
    assert search_folders("toy")[0] == tmp_path / "data" / "toy" and not has_dataset("toy")
    with pytest.raises(StanhlicError, match="not on this machine; set STANHLIC_DATA"): find_dataset("toy")
    for folder, names in ((tmp_path / "cache" / "toy", DATA), (tmp_path / "data" / "toy", list(DATA)[:2])):
        folder.mkdir(parents=True)
        for k in names: (folder / k).write_bytes(DATA[k])
    assert find_dataset("toy")[0].parent == tmp_path / "cache" / "toy"  # the first folder lacks a file
    assert find_dataset("toy", prefix="a1")[0].parent == tmp_path / "data" / "toy"
    (tmp_path / "cache" / "toy" / "a2.bin").unlink()
    with pytest.raises(StanhlicError, match="incomplete: .* has 2 of 3"): find_dataset("toy")
    with pytest.raises(StanhlicError, match="no file that starts"): find_dataset("toy", prefix="z")


def test_a_changed_file_is_named(toy, tmp_path):
    folder = tmp_path / "data" / "toy"; folder.mkdir(parents=True)
    for k, v in DATA.items(): (folder / k).write_bytes(v)
    (folder / "a1.bin").write_bytes(DATA["a1.bin"][:-1] + b"!")
    with pytest.raises(StanhlicError, match="a1.bin: not the file") as e: find_dataset("toy")
    assert "\n" not in str(e.value)
    assert len(find_dataset("toy", verify=False)) == 3


def test_same_pixels_in_another_packing(tmp_path):
    a = sample_photograph(40)
    write_image(tmp_path / "a.bmp", a)
    assert is_file_of(tmp_path / "a.bmp", {"sha256": "0" * 64, "pixels": pixel_hash(a)})
    assert not is_file_of(tmp_path / "a.bmp", {"sha256": "0" * 64, "pixels": pixel_hash(255 - a)})


def test_download_resumes(server, tmp_path):
    (tmp_path / "a0.bin.part").write_bytes(DATA["a0.bin"][:1234])
    download(f"{server.url}/a0.bin", tmp_path / "a0.bin", entry("a0.bin"), progress=False)
    assert (tmp_path / "a0.bin").read_bytes() == DATA["a0.bin"] and server.asked == ["bytes=1234-"]
    assert not (tmp_path / "a0.bin.part").exists()


def test_download_survives_broken_connections(server, tmp_path, capsys):
    server.cut, server.fail = 1600, 1
    download(f"{server.url}/a0.bin", tmp_path / "a0.bin", entry("a0.bin"))
    assert server.asked == [None, None, "bytes=1600-"]
    assert "a0.bin" in capsys.readouterr().err  # the bar


def test_download_from_a_server_without_ranges(server, tmp_path):
    server.ranges = False
    (tmp_path / "a0.bin.part").write_bytes(b"x" * 100)
    assert download(f"{server.url}/a0.bin", tmp_path / "a0.bin", entry("a0.bin"), progress=False).read_bytes() == DATA["a0.bin"]


def test_download_of_a_part_that_is_whole(server, tmp_path):
    (tmp_path / "a0.bin.part").write_bytes(DATA["a0.bin"])
    assert download(f"{server.url}/a0.bin", tmp_path / "a0.bin", entry("a0.bin"), progress=False).read_bytes() == DATA["a0.bin"]


def test_download_failures_are_one_line(server, tmp_path):
    target, e = tmp_path / "x" / "a0.bin", entry("a0.bin")
    for url, want, say in ((f"{server.url}/none", e, "404"), ("http://127.0.0.1:9/a", e, "refused"), (f"{server.url}/a1.bin", e, "SHA-256 differs"),
                           (f"{server.url}/big", e, "far over the manifest")):
        server.data["big"] = b"0" * (2 << 20)
        with pytest.raises(StanhlicError, match=say) as err: download(url, target, want, progress=False)
        assert "\n" not in str(err.value) and not target.exists()


def test_two_downloads_at_once_both_succeed(server, tmp_path):
    """The second one waits, then finds the file."""
    server.slow = 0.05
    paths, threads = [], []
    for _ in range(3): threads.append(threading.Thread(target=lambda: paths.append(download(f"{server.url}/a0.bin", tmp_path / "new" / "a0.bin", entry("a0.bin"), progress=False))))
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(paths) == 3 and (tmp_path / "new" / "a0.bin").read_bytes() == DATA["a0.bin"] and len(server.asked) == 1
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a0.bin"]


@pytest.mark.parametrize("how, said", [("slow", "bytes a second"), ("mute", "does not answer|timed out")])
def test_a_server_that_trickles_is_given_up(server, tmp_path, monkeypatch, how, said):
    monkeypatch.setattr(datasets, "PATIENCE", 0.2)
    setattr(server, how, 60.0 if how == "mute" else 0.05)
    monkeypatch.setattr(datasets, "SLOWEST", 1e6)
    with pytest.raises(StanhlicError, match=said): download(f"{server.url}/a0.bin", tmp_path / "a0.bin", entry("a0.bin"), progress=False, attempts=1)


def test_a_user_without_a_home_folder(monkeypatch):
    def none(): raise RuntimeError("Could not determine home directory.")
    for name in ("STANHLIC_CACHE", "XDG_CACHE_HOME", "STANHLIC_DATA"): monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(datasets.Path, "home", none)
    assert [p.name for p in search_folders("kodak")] == ["kodak"]
    with pytest.raises(StanhlicError, match="no home folder.*STANHLIC_CACHE"): fetch("kodak")


def test_fetch_a_set(server, toy, tmp_path):
    paths = fetch("toy", mirror=server.url + "/", progress=False)
    assert [p.read_bytes() for p in paths] == list(DATA.values()) and paths == find_dataset("toy")
    asked = len(server.asked)
    paths[1].write_bytes(b"damaged")
    fetch("toy", mirror=server.url, progress=False)
    assert len(server.asked) == asked + 1 and paths[1].read_bytes() == DATA["a1.bin"]


def test_download_on_request_only(toy):
    with pytest.raises(StanhlicError, match="cannot be downloaded"): find_dataset("toy", download=True)


def test_demo_images_without_kodak(monkeypatch, tmp_path):
    monkeypatch.setenv("STANHLIC_DATA", str(tmp_path)); monkeypatch.setenv("STANHLIC_CACHE", str(tmp_path)); monkeypatch.chdir(tmp_path)
    images, note = demo_images()
    assert [a.shape for _, a in images] == [(600, 512, 3)] and "not Kodak" in note
