"""What the keeper does for the processes it keeps, seen through the files it leaves."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from tunesmith.control.launch import keeper, local

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="rests on prctl")

ORPHAN = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        open("orphan.tmp", "w").write(str(os.getpid()))
        os.rename("orphan.tmp", "orphan")
        time.sleep(60)
    os._exit(0)
while not os.path.exists("orphan"):
    time.sleep(0.005)
"""
DEAF = """
import os, signal, time
signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True))
open("pid.tmp", "w").write(str(os.getpid()))
os.rename("pid.tmp", "pid")
while True:
    time.sleep(60)
"""


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_normal_exit_is_written_down_with_what_it_used(bench):
    bench.start("x = bytearray(40 << 20); print(sum(range(1_000_000)) > 0)")
    facts = bench.exit()
    assert (facts.code, facts.signal, facts.rank, facts.how()) == (0, None, 0, "exit code 0")
    assert 0 < facts.cpu_seconds < 30
    assert 0 < facts.wall_seconds < 30
    assert 40 << 20 < facts.peak_rss_bytes < 4 << 30
    assert abs(facts.ended - time.time()) < 30
    assert bench.text() == ["True"]


def test_exit_code_is_kept(bench):
    bench.start("raise SystemExit(3)")
    assert bench.exit().how() == "exit code 3"


def test_killed_by_a_stranger(bench):
    bench.start(DEAF)
    os.kill(int(bench.file("pid")), signal.SIGKILL)
    facts = bench.exit()
    assert (facts.code, facts.signal) == (None, "SIGKILL")
    assert not facts.killed_by_keeper
    assert not facts.out_of_memory
    assert facts.how() == "killed by SIGKILL"


def test_killed_while_the_kernel_counts_a_kill_is_out_of_memory(monkeypatch, tmp_path):
    kills = iter([7, 8, 8])
    monkeypatch.setattr(keeper, "oom_kills", lambda: next(kills))
    monkeypatch.setattr(keeper.Keeper, "_listen", lambda self: None)
    kept = keeper.Keeper({}, keeper.Log(tmp_path / "log"), keeper.execute)

    class Killed:
        code, sent = -signal.SIGKILL, set()

    assert kept._starved(Killed())
    Killed.sent = {signal.SIGKILL}
    assert not kept._starved(Killed())


@linux_only
def test_kernel_kills_can_be_counted_here():
    assert keeper.oom_kills() is not None


def test_unstartable_program_ends_with_127_and_the_reason(bench):
    bench.start("", argv=["/nowhere/python", "-c", ""])
    facts = bench.exit()
    assert (facts.code, facts.rank) == (127, 0)
    assert "/nowhere/python" in bench.text()[-1]
    assert bench.log()[-1].stream == "err"


def test_ranks_know_their_place(bench):
    name = "RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR"
    bench.start(
        f"import os; print(*[os.environ.get(n) for n in '{name}'.split()], 'MASTER_PORT' in os.environ)", ranks=2
    )
    assert bench.exit().code == 0
    assert sorted(bench.text()) == ["0 0 2 127.0.0.1 True", "1 1 2 127.0.0.1 True"]


def test_single_rank_is_given_no_meeting_point(bench):
    bench.start("import os; print('MASTER_ADDR' in os.environ, os.environ['WORLD_SIZE'])")
    bench.exit()
    assert bench.text() == ["False 1"]


@linux_only
def test_grandchildren_are_gone_when_the_exit_is_written(bench):
    bench.start(ORPHAN)
    assert bench.exit().code == 0
    assert gone(int(bench.file("orphan")))


def test_sibling_of_a_failed_rank_is_stopped(bench):
    code = f"import os\nif os.environ['RANK'] == '0':\n{DEAF.replace(chr(10), chr(10) + ' ')}\n"
    code += "\nimport time\nwhile not os.path.exists('pid'): time.sleep(0.005)\nraise SystemExit(4)"
    bench.start(code, ranks=2, grace_seconds=0.2)
    facts = bench.exit()
    assert (facts.code, facts.rank, facts.killed_by_keeper) == (4, 1, False)
    assert facts.how() == "rank 1: exit code 4"
    assert gone(int(bench.file("pid")))
    assert bench.text() == ["heard"]


def test_ring_reaches_the_rank_which_may_leave_by_itself(bench):
    code = DEAF.replace("print('heard', flush=True)", "").replace('lambda *_: print("heard", flush=True)', "leave")
    identity = bench.start("def leave(*_):\n    print('saved')\n    raise SystemExit(0)\n" + code)
    bench.file("pid")
    assert local.ring(identity)
    assert bench.exit().how() == "exit code 0"
    assert bench.text() == ["saved"]


def test_deaf_rank_is_killed_after_its_grace(bench):
    identity = bench.start(DEAF, grace_seconds=0.3)
    pid = int(bench.file("pid"))
    rung = time.monotonic()
    local.ring(identity)
    facts = bench.exit()
    assert time.monotonic() - rung >= 0.3
    assert (facts.signal, facts.killed_by_keeper, facts.how()) == ("SIGKILL", True, "stopped with SIGKILL")
    assert not facts.out_of_memory
    assert bench.text() == ["heard"]
    assert gone(pid)


def test_work_with_nothing_to_save_is_killed_at_once(bench):
    identity = bench.start(DEAF, grace_seconds=60, term_first=False)
    bench.file("pid")
    local.ring(identity)
    assert bench.exit().how() == "stopped with SIGKILL"
    assert bench.text() == []


def test_output_is_stamped_and_tells_its_stream(bench):
    before = datetime.now(UTC)
    bench.start("import sys; print('one'); print('two', file=sys.stderr)")
    bench.exit()
    lines = sorted(bench.log(), key=lambda line: line.text)
    assert [(line.stream, line.text) for line in lines] == [("out", "one"), ("err", "two")]
    assert all(before <= line.at <= datetime.now(UTC) for line in lines)
    raw = local.log_path(bench.run, "train", 1).read_bytes().splitlines()
    assert all(len(line.split(b" ")[0]) == len("2025-01-01T00:00:00.000000Z") for line in raw)


def test_binary_empty_and_unfinished_lines_are_kept(bench):
    bench.start(r"import os; os.write(1, b'\xff\x00x\r\n\nlast')")
    bench.exit()
    assert bench.text() == ["\ufffd\x00x\r", "", "last"]


def test_huge_lines_lose_nothing_and_block_nobody(bench):
    bench.start("import os; [os.write(1, b'z' * 100_000) for _ in range(80)]; print(); print('end')")
    assert bench.exit().code == 0
    *pieces, end = bench.text()
    assert end == "end"
    assert "".join(pieces) == "z" * 8_000_000
    assert max(map(len, pieces)) <= 2 * keeper.LINE_BYTES


def test_second_attempt_has_files_of_its_own(bench):
    bench.start("print('first')")
    bench.start("print('second')", attempt=2)
    assert (bench.exit(1).code, bench.exit(2).code) == (0, 0)
    assert (bench.text(1), bench.text(2)) == (["first"], ["second"])


@linux_only
def test_death_of_the_keeper_ends_its_ranks_and_is_reported(bench):
    identity = bench.start(ORPHAN + DEAF)
    rank, orphan = int(bench.file("pid")), int(bench.file("orphan"))
    os.kill(identity.pid, signal.SIGKILL)
    bench.until(lambda: gone(rank))
    assert not local.alive(identity)
    assert not gone(orphan)
    facts = local.lost(bench.run, "train", 1, identity)
    assert (facts.code, facts.signal, facts.how()) == (None, None, "its keeper was lost")
    assert gone(orphan)


def test_full_disk_costs_lines_and_is_noted_afterwards(tmp_path, monkeypatch):
    log = keeper.Log(tmp_path / "log")
    write = os.write

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    log.say("out", [b"a", b"b"])
    monkeypatch.setattr(os, "write", write)
    log.say("out", [b"c"])
    lost, said = Path(tmp_path / "log").read_text().splitlines()[-2:]
    assert "err keeper: 2 lines lost" in lost
    assert said.endswith(" out c")
