"""The server's side: starting once, finding again, telling the living from the dead, reading the log."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from tunesmith.control.launch import keeper, local
from tunesmith.errors import EngineError

WAIT_FOR_GO = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.005)\n"


def test_launch_outlives_the_server_that_started_it(bench):
    starter = (
        "import asyncio, sys; from pathlib import Path; from tunesmith.control.launch import local\n"
        "argv = [sys.executable, '-c', sys.argv[2]]\n"
        "asyncio.run(local.start(Path(sys.argv[1]), 'train', 1, argv, local.engine_environment({})))\n"
        "print('started', flush=True); sys.stdin.read()"
    )
    code = WAIT_FOR_GO + "print('on my own'); raise SystemExit(5)"
    with subprocess.Popen(
        [sys.executable, "-c", starter, str(bench.run), code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdout.readline() == b"started\n"
        server.kill()
    identity = local.find(bench.run, "train", 1)
    bench.identities.append(identity)
    assert local.alive(identity)
    (bench.run / "go").touch()
    assert bench.exit().how() == "exit code 5"
    assert bench.text() == ["on my own"]
    bench.until(lambda: not local.alive(identity))


def test_same_launch_twice_starts_once(bench):
    first = bench.start(WAIT_FOR_GO + "print('once')")
    again = bench.start("print('never')")
    assert again == first
    (bench.run / "go").touch()
    bench.exit()
    assert bench.start("print('never')") == first
    assert bench.text() == ["once"]


def test_keepers_that_race_for_a_launch_start_its_ranks_once(bench):
    """Servers that crashed before they saw the keeper they had started: none of them finds one."""
    code = "import os; open(f'rank-{os.getpid()}', 'w').close()\n" + WAIT_FOR_GO
    argv = [sys.executable, "-I", "-S", "-c", code]
    found = []

    def serve():
        found.append(asyncio.run(local.start(bench.run, "train", 1, argv, {})))

    servers = [threading.Thread(target=serve) for _ in range(4)]
    for server in servers:
        server.start()
    for server in servers:
        server.join()
    bench.identities += found
    assert len(found) == 4
    assert len(set(found)) == 1
    (bench.run / "go").touch()
    assert bench.exit().code == 0
    bench.until(lambda: all(child.poll() is not None for child in local._children.values()))
    assert len(list(bench.run.glob("rank-*"))) == 1
    assert not list(bench.run.glob("*launch.json*"))


@pytest.mark.parametrize("state", ["kept but not yet said", "ended"])
def test_late_keeper_leaves_and_takes_the_secrets_with_it(bench, state):
    path, log = bench.run / "train.1.launch.json", keeper.Log(bench.run / "log")
    argv = [sys.executable, "-c", "open('started', 'w')"]
    files = {name: str(bench.run / name) for name in ("log", "keeper_file", "exit_file")}
    launch = local.Launch(argv, str(bench.run), {}, 1, **files, grace_seconds=0, term_first=True)
    keeper.write_json(path, dataclasses.asdict(launch))
    assert log.claim() if state != "ended" else (bench.run / "keeper_file").write_text("{}")
    for _ in range(2):  # the second one finds nothing to read
        late = subprocess.run([sys.executable, "-I", "-S", keeper.__file__, str(path)], timeout=10, check=False)
        assert late.returncode == keeper.NOT_NEEDED
        assert not path.exists()
    assert not (bench.run / "started").exists()
    assert not (bench.run / "exit_file").exists()


def test_keeper_has_a_session_of_its_own(bench):
    identity = bench.start(WAIT_FOR_GO)
    assert os.getsid(identity.pid) == identity.pid != os.getsid(0)


def test_secrets_reach_the_rank_and_stay_nowhere(bench, monkeypatch):
    written = []
    write_json = keeper.write_json

    def watched(path, value):
        write_json(path, value)
        written.append((path.name, stat.S_IMODE(path.stat().st_mode), "s3cret" in path.read_text()))

    monkeypatch.setattr(keeper, "write_json", watched)
    bench.start("import os; print(len(os.environ['WANDB_API_KEY']))", env={"WANDB_API_KEY": "s3cret"})
    bench.exit()
    assert written == [("train.1.launch.json", 0o600, True)]
    assert bench.text() == ["6"]
    files = [path for path in bench.run.rglob("*") if path.is_file()]
    assert {path.name for path in files} == {"train.1.keeper.json", "train.1.exit.json", "train.1.log"}
    assert not any(b"s3cret" in path.read_bytes() for path in files)
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)


def test_keeper_that_cannot_start_is_an_error_that_names_the_log(bench, monkeypatch):
    monkeypatch.setattr(keeper, "__file__", str(bench.run / "missing.py"))
    with pytest.raises(EngineError, match=r"train\.1\.log"):
        bench.start("")
    assert not (bench.run / "train.1.launch.json").exists()
    assert "missing.py" in bench.text()[-1]


def test_another_process_with_the_same_pid_is_not_taken_for_alive(bench):
    identity = bench.start(WAIT_FOR_GO)
    assert local.alive(identity)
    strangers = [
        dataclasses.replace(identity, started=identity.started - 10),
        dataclasses.replace(identity, boot="another"),
        dataclasses.replace(identity, pid=2**22 + 1),
    ]
    for stranger in strangers:
        assert not local.alive(stranger)
        assert not local.ring(stranger)
        asyncio.run(local.stop(stranger, 0))
        assert local.lost(bench.run, "serve", 1, stranger).how().startswith("its keeper was lost")
    assert local.alive(identity)


def test_restart_of_the_machine_is_said(bench):
    before = local.Identity("another", 1, 0.0)
    assert local.lost(bench.run, "train", 1, before).how() == "its keeper was lost: the machine was restarted"


def test_dead_child_is_reaped(bench):
    identity = bench.start("")
    bench.exit()
    bench.until(lambda: not local.alive(identity))
    assert not psutil.pid_exists(identity.pid)


def test_stop_lets_the_keeper_write_how_it_ended(bench):
    identity = bench.start(WAIT_FOR_GO, grace_seconds=5)
    asyncio.run(local.stop(identity, 10))
    assert not local.alive(identity)
    assert bench.exit().how() == "stopped with SIGTERM"


def test_stop_ends_a_frozen_keeper_and_all_it_keeps(bench):
    identity = bench.start("import os; open('pid', 'w').write(str(os.getpid()))\n" + WAIT_FOR_GO)
    rank = psutil.Process(int(bench.file("pid")))
    os.kill(identity.pid, signal.SIGSTOP)
    asyncio.run(local.stop(identity, 0.1))
    assert not local.alive(identity)
    bench.until(lambda: not rank.is_running() or rank.status() == psutil.STATUS_ZOMBIE)
    assert local.exit_facts(bench.run, "train", 1) is None
    assert local.lost(bench.run, "train", 1, identity).lost


def test_nothing_is_known_of_what_was_never_started(bench):
    assert local.find(bench.run, "prepare", 1) is None
    assert local.exit_facts(bench.run, "prepare", 1) is None
    assert local.read_log(bench.run, "prepare", 1) == []
    assert local.last_lines(bench.run, "prepare", 1, 5) == []


def test_log_is_read_in_pages_and_from_its_end(bench):
    bench.start("for n in range(5000): print(n, 'x' * 40)")
    bench.exit()
    page = local.read_log(bench.run, "train", 1, after_line=10, limit=3)
    assert [line.text.split()[0] for line in page] == ["10", "11", "12"]
    assert local.read_log(bench.run, "train", 1, after_line=5000) == []
    for n in (0, 1, 2500, 5000, 9999):
        tail = [int(line.text.split()[0]) for line in local.last_lines(bench.run, "train", 1, n)]
        assert tail == list(range(5000))[max(0, 5000 - n) :]


def test_unfinished_line_is_not_there_yet(bench):
    log = local.log_path(bench.run, "serve", 1)
    log.parent.mkdir()
    log.write_bytes(b"2025-01-02T03:04:05.000006Z out whole\n2025-01-02T03:04:05.000006Z out ha")
    assert [line.text for line in local.read_log(bench.run, "serve", 1)] == ["whole"]
    assert [line.text for line in local.last_lines(bench.run, "serve", 1, 5)] == ["whole"]
    assert local.read_log(bench.run, "serve", 1)[0].at.isoformat() == "2025-01-02T03:04:05.000006+00:00"


def test_engines_do_not_see_the_servers_secrets(monkeypatch):
    for name in ("TUNESMITH_SECRET_KEY", "HF_TOKEN", "NVIDIA_API_KEY", "DATABASE_URL", "AWS_PROFILE"):
        monkeypatch.setenv(name, "hidden")
    for name in ("HF_HOME", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "CUDA_VISIBLE_DEVICES", "https_proxy"):
        monkeypatch.setenv(name, "shown")
    env = local.engine_environment({"HF_TOKEN": "the job's own", "OMP_NUM_THREADS": "2"})
    assert "hidden" not in env.values()
    assert env["PATH"] == os.environ["PATH"]
    assert env["HF_HOME"] == env["TOKENIZERS_PARALLELISM"] == env["CUDA_VISIBLE_DEVICES"] == env["https_proxy"]
    assert (env["HF_TOKEN"], env["OMP_NUM_THREADS"]) == ("the job's own", "2")


def test_how_it_died_in_words():
    end = local.Exit(None, "SIGKILL", 0, True, False, 1.0, 1.0, 1, 1.0)
    assert end.how() == "killed by SIGKILL (out of memory)"
    assert dataclasses.replace(end, rank=2, out_of_memory=False).how() == "rank 2: killed by SIGKILL"
    assert dataclasses.replace(end, signal="SIGTERM", killed_by_keeper=True).how() == "stopped with SIGTERM"


def test_keeper_file_names_its_ranks(bench):
    identity = bench.start(WAIT_FOR_GO, ranks=2)
    path = Path(bench.run / "train.1.keeper.json")
    known = bench.until(lambda: json.loads(path.read_bytes())["ranks"])
    ranks = [local.Identity(identity.boot, rank["pid"], rank["started"]) for rank in known]
    assert len(ranks) == 2
    assert all(local.alive(rank) for rank in ranks)


def test_a_clock_that_is_set_between_two_looks_does_not_kill(bench, monkeypatch):
    """psutil counts from a boot time that moves with the clock; a job must not be taken for lost because of it."""
    identity = bench.start("import time; time.sleep(60)")
    booted = psutil.boot_time()
    monkeypatch.setattr(psutil, "boot_time", lambda: booted + 1)
    assert local.alive(identity)
