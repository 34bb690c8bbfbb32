"""Nothing of the user's is lost: what is an input, where outputs go, what is never written over, pipes, and many files at once."""
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stanhlic import files
from stanhlic.errors import NotEnoughMemory, StanhlicError
from stanhlic.files import CODED, PICTURES, Job, plan_jobs
from stanhlic.images import read_image


def ok(done):
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(done, *words):
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert not [w for w in words if w not in done.stderr], done.stderr


@pytest.fixture
def here(tmp_path, monkeypatch):
    """`here("a.png", "b/c.png")` puts empty files into the current folder, which is a temporary one."""
    monkeypatch.chdir(tmp_path)
    def put(*names):
        for n in names: Path(n).parent.mkdir(parents=True, exist_ok=True); Path(n).write_bytes(b"theirs")
        return tmp_path
    return put


def targets(plan): return [(j.source, j.target) for j in plan.jobs]


# %% what is an input, what an output

def test_a_second_picture_is_no_output(here):
    """What a shell makes of `compress *.png`, with one, two and three of them."""
    here("a.png", "b.png", "c.png")
    for names in (["a.png"], ["a.png", "b.png"], ["a.png", "b.png", "c.png"]):
        plan = plan_jobs(names, None, PICTURES)
        assert targets(plan) == [(n, n.replace("png", "slic")) for n in names] and plan.several == (len(names) > 1) and not any(j.replace for j in plan.jobs)
    here("a.slic", "b.slic")
    assert targets(plan_jobs(["a.slic", "b.slic"], "out", CODED)) == [("a.slic", "out/a.png"), ("b.slic", "out/b.png")]


def test_a_named_output_is_replaced(here):
    here("a.png", "out.slic")
    for words in ((["a.png", "out.slic"], None), (["a.png"], "out.slic")): assert plan_jobs(*words, PICTURES).jobs == [Job("a.png", "out.slic", True)]
    here("new.dat")
    assert plan_jobs(["a.png"], "new.dat", PICTURES).jobs == [Job("a.png", "new.dat", True)]
    assert plan_jobs(["out.slic", "new.png"], None, CODED).jobs == [Job("out.slic", "new.png", True)]


@pytest.mark.parametrize("paths, out, kind, said", [
    (["a.png", "b.jpg"], None, PICTURES, "b.jpg: that is the name of an input; let the output end in .slic"), (["a.png"], "theirs.png", PICTURES, "name of an input"),
    (["a.png", "notes.txt"], None, PICTURES, "notes.txt: exists and is no .slic file"), (["a.slic"], "b.slic", CODED, "name of an input; let the output end in .png"),
    (["a.png", "a.png"], None, PICTURES, "is the input itself"), (["a.png", "./a.png", "theirs.png"], None, PICTURES, "a.png: is given twice"),
    (["a.png", "more"], None, PICTURES, "more: holds inputs itself; give the output folder by --out"), (["more", "more"], None, PICTURES, "more: holds inputs itself"),
    (["more"], "notes.txt", PICTURES, "notes.txt: is a file; name a folder"), (["a.png", "theirs.png", "more"], "notes.txt", PICTURES, "is a file; name a folder"),
    (["a.slic"], None, PICTURES, "is a .slic file already"), (["a.png", "more/a.png"], "out", PICTURES, "several files would become out/a.slic"),
    (["-", "a.png", "theirs.png"], None, PICTURES, "a pipe is one input"), (["more"], "-", PICTURES, "do not fit into one pipe"), (["empty"], None, PICTURES, "holds no image"),
    (["deep"], None, PICTURES, "--recursive looks into its folders too")], ids=lambda v: " ".join(v) if isinstance(v, list) else None)
def test_what_is_uncertain_is_refused(here, paths, out, kind, said):
    root = here("a.png", "theirs.png", "notes.txt", "a.slic", "more/a.png", "deep/er/a.png")
    (root / "empty").mkdir()
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    with pytest.raises(StanhlicError, match=said.replace("*", r"\*")): plan_jobs(paths, out, kind)
    assert before == {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_names_that_were_not_given_are_not_written_over(here):
    here("in/a.png", "in/b.png", "out/a.slic", "p.png", "p.slic")
    for words in ((["p.png"], None), (["in"], "out"), (["in", "out"], None), (["in/a.png"], "out/")):
        with pytest.raises(StanhlicError, match=r"\.slic: exists already; --skip-existing leaves it, --force replaces it"): plan_jobs(*words, PICTURES)
    plan = plan_jobs(["in"], "out", PICTURES, skip=True)
    assert targets(plan) == [("in/b.png", "out/b.slic")] and [j.target for j in plan.skipped] == ["out/a.slic"]
    assert [j.replace for j in plan_jobs(["in"], "out", PICTURES, force=True).jobs] == [True, True]
    with pytest.raises(StanhlicError, match="exclude each other"): plan_jobs(["in"], "out", PICTURES, skip=True, force=True)


def test_folders(here):
    """Hidden files are no pictures, suffixes count in lower case, what is left out is counted, folders below are entered on demand."""
    root = here("in/a.PNG", "in/b.JPE", "in/._a.png", "in/.DS_Store", "in/notes.txt", "in/movie.mp4", "in/old.slic", "in/sub/c.jfif", "in/.thumbs/d.png")
    plan = plan_jobs(["in"], "out", PICTURES)
    assert targets(plan) == [("in/a.PNG", "out/a.slic"), ("in/b.JPE", "out/b.slic")] and plan.others == 2 and (root / "out").is_dir()
    assert targets(plan_jobs(["in"], "out", PICTURES, recursive=True))[-1] == ("in/sub/c.jfif", "out/sub/c.slic") and (root / "out/sub").is_dir()
    assert targets(plan_jobs(["in/"], None, PICTURES, recursive=True))[-1] == ("in/sub/c.jfif", "in/sub/c.slic")
    here("in/A.SLIC")
    assert [j.source for j in plan_jobs(["in"], "out", CODED).jobs] == ["in/A.SLIC", "in/old.slic"]


def test_lists(here):
    """Names from a list keep their paths below the output folder, so that no two of them meet there."""
    root = here("a/x.png", "b/x.png")
    Path("list").write_bytes(b"a/x.png\nb/x.png\r\n\n" + bytes(root) + b"/c/\xff.png\n")
    plan = plan_jobs([], "out", PICTURES, listed="list")
    assert [t for _, t in targets(plan)] == ["out/a/x.slic", "out/b/x.slic", str(Path("out") / root.relative_to("/") / os.fsdecode(b"c/\xff.slic"))]
    Path("list").write_text("../x.png\n")
    with pytest.raises(StanhlicError, match="leads out of the output folder"): plan_jobs([], "out", PICTURES, listed="list")


# %% through the command line

def test_two_photographs_stay_photographs(cli, models, photo, tmp_path):
    for name in ("a.png", "b.png"): (tmp_path / name).write_bytes(photo.read_bytes())
    said = ok(cli("compress", tmp_path / "a.png", tmp_path / "b.png", "--model", "tiny"))
    assert [line.split(":")[0] for line in said.splitlines()] == ["1 of 2", "2 of 2", said.splitlines()[-1]] and said.splitlines()[-1].startswith("2 files, ")
    assert all((tmp_path / n).read_bytes() == photo.read_bytes() for n in ("a.png", "b.png"))
    for command, word in (("compress", "a.slic and 1 more: exist already"), ("decompress", "a.png and 1 more: exist already")):
        refused(cli(command, *sorted(tmp_path.glob("*.png" if command == "compress" else "*.slic"))), word)
    refused(cli("decompress", tmp_path / "a.slic"), "a.png: exists already")
    assert (tmp_path / "a.png").read_bytes() == photo.read_bytes()
    (tmp_path / "b.slic").unlink()
    rows = json.loads(ok(cli("compress", tmp_path, "--model", "tiny", "--skip-existing", "--json")))
    assert [(Path(r["input"]).name, r.get("skipped", False)) for r in rows] == [("a.png", True), ("b.png", False)]
    assert ok(cli("compress", tmp_path, "--model", "tiny", "--skip-existing")).splitlines() == ["0 files; 2 more were there already"]


def test_what_is_left_out_is_counted(cli, models, photo, tmp_path):
    (tmp_path / "a.png").write_bytes(photo.read_bytes())
    for name in ("._a.png", "notes.txt"): (tmp_path / name).write_text("no picture")
    done = cli("compress", tmp_path, "--out", tmp_path / "out", "--model", "tiny")
    assert ok(done) and "1 file left out" in done.stderr and [p.name for p in (tmp_path / "out").iterdir()] == ["a.slic"]


def test_truncate_replaces_cuts_of_the_same_file_alone(cli, tmp_path, monkeypatch, models):
    import torch
    from stanhlic.lab.bench import random_codec
    codec = random_codec("compact", "rnn")
    rng, data = np.random.default_rng(0), []
    for _ in range(2): data.append(codec.encode(rng.integers(0, 255, (64, 64, 3), np.uint8)))
    torch.manual_seed(0)
    a, b, t = (tmp_path / f"{n}.slic" for n in "abt")
    a.write_bytes(data[0]); b.write_bytes(data[1])
    refused(cli("truncate", a, b, "--layers", 1), "b.slic: exists and is no cut of this file; --force replaces it")
    assert b.read_bytes() == data[1]
    for layers in (2, 1, 3): ok(cli("truncate", a, t, "--layers", layers))
    refused(cli("truncate", b, t, "--layers", 1), "no cut of this file")
    ok(cli("truncate", b, t, "--layers", 1, "--force"))
    (tmp_path / "a.html").write_text("theirs")
    refused(cli("view", a), "a.html: exists already")
    assert (tmp_path / "a.html").read_text() == "theirs"


def test_a_decoded_picture_is_compared(cli, models, photo, slic, tmp_path):
    from stanhlic.metrics import psnr
    done = json.loads(ok(cli("decompress", slic, tmp_path / "a.png", "--original", photo, "--json")))
    assert done["psnr"] == psnr(read_image(photo), read_image(tmp_path / "a.png")) and done["ms_ssim"] is None and (done["width"], done["model"]) == (160, "tiny")
    assert f"PSNR {done['psnr']:.2f} dB" in ok(cli("decompress", slic, tmp_path / "a.png", "--original", photo))
    assert "identical to the original" in ok(cli("decompress", slic, tmp_path / "a.png", "--original", tmp_path / "a.png"))
    from stanhlic.images import write_image
    write_image(tmp_path / "small.png", np.zeros((9, 9, 3), np.uint8))
    refused(cli("decompress", slic, tmp_path / "b.png", "--original", tmp_path / "small.png"), "the original is 9x9")
    assert not (tmp_path / "b.png").exists()


def test_info_in_short_and_whole(cli, models, slic, tmp_path):
    short, whole = ok(cli("info", slic)), ok(cli("info", slic, "-v"))
    assert [line.split()[0] for line in short.splitlines()] == ["size", "bytes", "bpp", "model", "quality", "state"] and short.endswith("whole\n")
    assert "fingerprint" in whole and "chunks" in whole and "fingerprint" not in short
    (tmp_path / "b.slic").write_bytes(slic.read_bytes())
    table = ok(cli("info", slic, tmp_path / "b.slic")).splitlines()
    assert len(table) == 3 and table[0].split()[-1] == "state" and len(json.loads(ok(cli("info", slic, slic, "--json")))) == 2


def test_names_that_the_terminal_cannot_spell(models, photo, tmp_path):
    """The work is done and said in escapes; names that are no UTF-8 are read and written."""
    name = os.fsencode(tmp_path / "ü€") + b"\xff.png"
    Path(os.fsdecode(name)).write_bytes(photo.read_bytes())
    done = subprocess.run([sys.executable, "-m", "stanhlic", "compress", name, "--model", "tiny"], capture_output=True, env=os.environ | {"PYTHONIOENCODING": "cp1252"})
    assert done.returncode == 0, done.stderr
    assert os.path.exists(name.replace(b".png", b".slic")) and rb"\udcff.slic: " in done.stdout and "ü€".encode("cp1252") in done.stdout


def test_pages_of_names_that_are_no_utf8():
    from stanhlic.view import fill
    assert rb"a\udcff.slic" in fill({}, os.fsdecode(b"a\xff.slic")).encode()


# %% help

def test_short_help_and_module(cli, capfd):
    assert ok(cli("-h")) == ok(cli("--help")) and ok(cli("compress", "-h")) == ok(cli("compress", "--help"))
    done = subprocess.run([sys.executable, "-m", "stanhlic", "--version"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(".") == 2


def test_shells_complete_commands(cli, monkeypatch):
    for name, value in (("_STANHLIC_COMPLETE", "complete_bash"), ("COMP_WORDS", "stanhlic decom"), ("COMP_CWORD", "1")): monkeypatch.setenv(name, value)
    assert ok(cli()).split() == ["decompress"]


def test_threads(cli, monkeypatch, models, photo, tmp_path):
    import torch
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    try:
        ok(cli("compress", photo, tmp_path / "a.slic", "--model", "tiny", "--threads", before + 1))
        assert torch.get_num_threads() == before + 1 and os.environ["OMP_NUM_THREADS"] == str(before + 1)
    finally: torch.set_num_threads(before)


# %% pipes

@pytest.fixture
def piped(monkeypatch):
    """`piped(data, "info", "-")`: exit code, bytes on standard output, text on standard error."""
    def run(data, *words):
        from stanhlic.cli import main
        out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
        with monkeypatch.context() as m:
            m.setattr(sys, "argv", ["stanhlic", *map(str, words)])
            for name, stream in (("stdin", io.TextIOWrapper(io.BytesIO(data))), ("stdout", out), ("stderr", err)): m.setattr(sys, name, stream)
            with pytest.raises(SystemExit) as end: main()
        return end.value.code or 0, out.buffer.getvalue(), err.getvalue()
    return run


def test_pipes(piped, cli, models, photo, slic, tmp_path, monkeypatch):
    """What goes through a pipe is what a file would hold, and nothing else; messages are on standard error."""
    for words in (("-",), ("-", "-"), ("-", "--out", "-"), (photo, "-"), (photo, "/dev/stdout")):
        code, out, err = piped(photo.read_bytes(), "compress", *words, "--model", "tiny")
        assert (code, out) == (0, slic.read_bytes()) and err.startswith("-: ") and "bpp" in err
    code, out, err = piped(photo.read_bytes(), "compress", "-", tmp_path / "a.slic", "--model", "tiny")
    assert (code, err) == (0, "") and (tmp_path / "a.slic").read_bytes() == slic.read_bytes() and b"bpp" in out
    ok(cli("decompress", slic, tmp_path / "a.png"))
    for words in (("-",), (slic, "-")):
        code, out, err = piped(slic.read_bytes(), "decompress", *words)
        assert code == 0 and out == (tmp_path / "a.png").read_bytes() and "160x128" in err
    code, out, err = piped(slic.read_bytes(), "info", "-", "--json")
    assert code == 0 and json.loads(out)["model"] == "tiny"
    code, out, err = piped(b"text", "info", "-")
    assert (code, out) == (1, b"") and "-: not a .slic file" in err and len(err.splitlines()) == 1
    code, out, err = piped(slic.read_bytes(), "compress", "--list", tmp_path / "none", "-")
    assert code == 1 and "a pipe is one input" in err


def test_no_file_goes_to_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(StanhlicError, match="is a terminal"): files.check_target("a.png", "-")


@pytest.mark.long
def test_a_real_pipe_and_one_that_breaks(models, photo, slic, tmp_path):
    command = f"'{sys.executable}' -m stanhlic compress - - --model tiny"
    assert subprocess.run(f"{command} < '{photo}' | cat", shell=True, capture_output=True).stdout == slic.read_bytes()
    code = f"import os, subprocess, sys; r, w = os.pipe(); os.close(r); p = subprocess.run({command!r}, shell=True, stdin=open({str(photo)!r}), stdout=w, stderr=subprocess.PIPE); print(p.returncode, p.stderr.decode())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert said.startswith("1 stanhlic: error: -: the rest of the pipe does not read") and len(said.strip().splitlines()) == 1


# %% many at once

def square(job):
    if job.source == "3": raise StanhlicError("3 is refused")
    if job.source == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if job.source == "slow": time.sleep(600)
    time.sleep(0.1 if job.source == "0" else 0)  # the first one ends last
    return int(job.source) ** 2


@pytest.mark.long
def test_results_come_in_order_whoever_is_first():
    jobs = [Job(str(i), "", False) for i in range(6)]
    for count in (1, 2): assert [r if isinstance(r, int) else str(r) for _, r in files.run(jobs, square, count)] == [0, 1, 4, "3 is refused", 16, 25]


@pytest.mark.long
def test_a_killed_process_ends_the_run():
    with pytest.raises(NotEnoughMemory, match="--skip-existing"): list(files.run([Job("kill", "", False), Job("1", "", False)], square, 2))


def test_processes(monkeypatch):
    monkeypatch.setattr(files.os, "sched_getaffinity", lambda pid: range(16), raising=False)
    monkeypatch.setattr(files, "free_memory", lambda: 100e9)
    assert [files.processes(None, n, "cpu") for n in (1, 7, 8, 24, 1000)] == [1, 1, 2, 6, 16] and files.processes(3, 100, "cpu") == 3 and files.processes(8, 2, "cpu") == 2
    monkeypatch.setattr(files, "free_memory", lambda: 4e9)
    assert files.processes(None, 1000, "cpu") == 2


def test_cores_of_a_container(monkeypatch, tmp_path):
    monkeypatch.setattr(files.os, "sched_getaffinity", lambda pid: range(16), raising=False)
    mine, box, pod = tmp_path / "self", tmp_path / "pod/box", tmp_path / "pod"
    box.mkdir(parents=True)
    (tmp_path / "cpu").mkdir()
    found = lambda: files.cores(tmp_path, mine)
    assert found() == 16
    mine.write_text("0::/pod/box\n")
    (box / "cpu.max").write_text("max 100000\n")
    assert found() == 16
    (pod / "cpu.max").write_text("250000 100000\n")
    assert found() == 2
    (box / "cpu.max").write_text("50000 100000\n")
    assert found() == 1
    mine.write_text("4:cpu,cpuacct:/\n7:memory:/\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    for quota, count in (("-1", 16), ("400000", 4), ("no number", 16)):
        (tmp_path / "cpu/cpu.cfs_quota_us").write_text(quota)
        assert found() == count


def stuck(path):
    """A pipe in place of a picture that nobody writes: whoever reads it is there until it is stopped, however fast the machine is."""
    picture = Path(path).read_bytes()
    Path(path).unlink(); os.mkfifo(path)
    def mend(): Path(path).unlink(); Path(path).write_bytes(picture)
    return mend


@pytest.mark.long
def test_a_list_in_two_processes_stopped_and_resumed(cli, models, photo, tmp_path, monkeypatch):
    """Ctrl-C leaves whole files and says how to go on; going on gives what one process gives, in its order."""
    monkeypatch.chdir(tmp_path)
    names = [f"{i:02d}" for i in range(24)]
    for n in names: Path(f"{n}.png").write_bytes(photo.read_bytes())
    Path("list").write_text("".join(f"{n}.png\n" for n in names))
    mend = stuck("05.png")  # one process waits there, the other computes
    words = ("compress", "--list", "list", "--out", "out", "--model", "tiny")
    with subprocess.Popen([sys.executable, "-m", "stanhlic", *words, "--jobs", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler)) as p:  # also where tests run in the background, which ignores it
        assert p.stdout.readline().startswith("1 of 24: ")
        os.killpg(p.pid, signal.SIGINT)  # as a terminal does: to all processes
        out, err = p.communicate()
    assert p.returncode == 130 and "--skip-existing goes on" in err and "Traceback" not in err
    left = sorted(Path("out").iterdir())
    assert 1 <= len(left) < 24 and {p.suffix for p in left} == {".slic"} and len({p.read_bytes() for p in left}) == 1
    mend()
    rows = json.loads(ok(cli(*words, "--jobs", 1, "--skip-existing", "--json")))
    assert [Path(r["output"]).name for r in rows] == [f"{n}.slic" for n in names] and [r.get("skipped", False) for r in rows] == [Path("out", f"{n}.slic") in left for n in names]
    assert {p.read_bytes() for p in Path("out").iterdir()} == {left[0].read_bytes()}


def many_pictures(folder, count, photo):
    """Small pictures in folders where names come twice, one that is none, and their list."""
    from PIL import Image
    small, names = Image.open(photo).crop((0, 0, 64, 64)), []
    for i in range(count):
        path = folder / "in" / "ab"[i % 2] / f"{i // 2:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small.save(path)
        names.append(str(path.relative_to(folder)))
    (folder / names[7]).write_bytes(b"no picture")
    (folder / "list").write_text("\n".join(names) + "\n")
    return names


@pytest.mark.long
def test_a_list_in_shards_one_of_which_is_killed(cli, models, photo, tmp_path, monkeypatch):
    """Nothing is lost and nothing is done twice."""
    monkeypatch.chdir(tmp_path)
    names = many_pictures(tmp_path, 36, photo)
    parts = [f"{k}.txt" for k in range(3)]
    files.split_list("list", "out", parts)
    shards = [Path(p).read_text().split() for p in parts]
    assert sorted(sum(shards, [])) == sorted(names)
    words = lambda k: ("compress", "--list", f"{k}.txt", "--out", "out", "--model", "tiny", "--skip-existing", "--json", "--jobs", "1")
    mend = stuck(shards[0][9])
    with subprocess.Popen([sys.executable, "-m", "stanhlic", *words(0)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as p:
        while len(list(Path("out").rglob("*.slic"))) < 8 and p.poll() is None: time.sleep(0.01)
        mend(); p.kill()
    made = {p: p.stat().st_mtime_ns for p in Path("out").rglob("*.slic")}
    assert len(made) in (8, 9) and not [p for p in Path("out").rglob("*") if p.is_file() and p.suffix != ".slic"]
    for k in range(3): Path(f"{k}.json").write_text(cli(*words(k)).stdout)
    table = files.join_parts("list", [f"{k}.json" for k in range(3)])
    assert [r["input"] for r in table["pictures"]] == [n for n in names if n != names[7]] and [r["input"] for r in table["refused"]] == [names[7]]
    assert sorted(str(p) for p in Path("out").rglob("*.slic")) == sorted(r["output"] for r in table["pictures"]) and len({p.read_bytes() for p in Path("out").rglob("*.slic")}) == 1
    assert all(p.stat().st_mtime_ns == t for p, t in made.items())
    for wrong in (["0.json", "1.json"], ["0.json", "0.json", "1.json", "2.json"]):
        with pytest.raises(StanhlicError, match="results for 36 files"): files.join_parts("list", wrong)
    Path(table["pictures"][0]["output"]).unlink()
    with pytest.raises(StanhlicError, match="is gone"): files.join_parts("list", [f"{k}.json" for k in range(3)])


def test_a_list_whose_files_would_meet_is_not_split(here):
    here("a/x.png", "a/x.jpg")
    Path("list").write_text("a/x.png\na/x.jpg\n")
    with pytest.raises(StanhlicError, match="several files would become out/a/x.slic"): files.split_list("list", "out", ["0", "1"])
    assert not Path("0").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.long
def test_processes_end_with_the_one_that_started_them(tmp_path):
    code = ("import sys; sys.path.insert(0, sys.argv[1])\nimport test_files as t\nfrom stanhlic import files\n"
            "if __name__ == '__main__':\n    for _, r in files.run([t.Job(str(i), '', False) for i in (1, 2)] + [t.Job('slow', '', False)] * 2, t.square, 2): print(r, flush=True)\n")
    (tmp_path / "main.py").write_text(code)
    with subprocess.Popen([sys.executable, tmp_path / "main.py", Path(__file__).parent], stdout=subprocess.PIPE, text=True, start_new_session=True) as p:
        p.stdout.readline()
        def children(): return [s for s in Path("/proc").glob("[0-9]*/stat") if s.exists() and f" {p.pid} {p.pid} " in _read(s)]  # of its process group
        def _read(s):
            try: return s.read_text()
            except OSError: return ""
        assert len(children()) > 2
        p.kill(); p.wait()
        end = time.monotonic() + 500
        while children() and time.monotonic() < end: time.sleep(0.1)
        assert not children()
