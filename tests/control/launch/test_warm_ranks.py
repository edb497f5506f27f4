"""A rank that is forked where its imports are done finds and leaves what one that is executed does."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.launch.conftest import Bench, until
from tunesmith.control.launch import local
from tunesmith.control.launch.forker import Forker

MODULE = "tests.control.launch.told"
ENVIRONMENT = {"PYTHONPATH": str(Path(__file__).parents[3]), "A_SECRET": "s3cret"}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forker]:
    env = local.engine_environment({"PYTHONPATH": ENVIRONMENT["PYTHONPATH"]})
    forker = Forker(env, MODULE, 60.0, tmp_path_factory.mktemp("data"))
    forker.warm()
    until(forker.ready)
    yield forker
    forker.close()


def launch(bench: Bench, wanted: str, forker: Forker | None, attempt: int = 1) -> local.Identity:
    (bench.run / "wanted").write_text(wanted)
    argv = [sys.executable, "-P", "-m", MODULE, str(bench.run)]
    return bench.start("", attempt, argv=argv, env=ENVIRONMENT, forker=forker, module=MODULE)


def rank(bench: Bench, attempt: int = 1) -> int:
    file = bench.run / f"train.{attempt}.keeper.json"
    return int(until(lambda: json.loads(file.read_text())["ranks"])[0]["pid"])


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def test_it_finds_the_same_world(bench: Bench, warm: Forker) -> None:
    found = []
    for attempt, forker in ((1, None), (2, warm)):
        launch(bench, "", forker, attempt)
        assert bench.exit(attempt).code == 0
        found.append(json.loads(bench.file("found.json")))
        assert sorted(bench.text(attempt)) == ["said on err", "said on out"]
        assert {line.stream for line in bench.log(attempt)} == {"out", "err"}
    assert found[0] == found[1]
    assert found[1]["environment"]["A_SECRET"] == "s3cret"
    assert found[1]["marked"]


@pytest.mark.parametrize(("wanted", "code"), [("three", 3), ("exit", 4), ("raise", 1), ("thread", 0)])
def test_it_ends_the_same_way(bench: Bench, warm: Forker, wanted: str, code: int) -> None:
    for attempt, forker in ((1, None), (2, warm)):
        launch(bench, wanted, forker, attempt)
        assert bench.exit(attempt).code == code, bench.text(attempt)
        if wanted == "thread":
            (bench.run / "later").unlink()
        if wanted == "raise":
            assert bench.text(attempt)[-1] == "ValueError: on purpose"


def test_it_is_told_to_end_and_dies_with_its_keeper(bench: Bench, warm: Forker) -> None:
    first = launch(bench, "wait", warm)
    bench.file("found.json")
    assert MODULE in command(rank(bench)), "it is a fork"
    local.ring(first)
    assert (bench.exit().signal, bench.exit().killed_by_keeper) == ("SIGTERM", True)
    (bench.run / "found.json").unlink()
    second = launch(bench, "wait", warm, attempt=2)
    bench.file("found.json")
    pid = rank(bench, 2)
    os.kill(second.pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert "lost" in local.lost(bench.run, "train", 2, second).how()


def test_what_was_forked_outlives_the_process_that_it_comes_from(bench: Bench, tmp_path: Path) -> None:
    env = local.engine_environment({"PYTHONPATH": ENVIRONMENT["PYTHONPATH"]})
    forker = Forker(env, MODULE, 60.0, tmp_path)
    forker.warm()
    until(forker.ready)
    launch(bench, "wait", forker)
    bench.file("found.json")
    forker.close()
    assert not forker.ready()
    assert local.exit_facts(bench.run, "train", 1) is None
    os.kill(rank(bench), signal.SIGKILL)
    assert bench.exit().signal == "SIGKILL"


def test_it_is_made_ready_for_a_launch_and_leaves_when_nobody_asks(bench: Bench, tmp_path: Path) -> None:
    env = local.engine_environment({"PYTHONPATH": ENVIRONMENT["PYTHONPATH"]})
    forker = Forker(env, MODULE, 0.3, tmp_path)
    forker.warm()
    until(forker.ready)
    forker.warm(bench.run)
    until(forker.ready)
    pid = int(bench.file("ready"))
    until(lambda: not forker.ready())
    assert not forker.failed
    forker.warm(bench.run)
    until(forker.ready)
    assert int(bench.file("ready")) != pid, "another one"
    forker.close()


def test_one_that_cannot_import_is_given_up_and_ranks_are_executed(
    bench: Bench, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    forker = Forker(local.engine_environment({}), "no.such.module", 60.0, tmp_path)
    forker.warm()
    until(lambda: forker.warm() or forker.failed)
    assert not forker.ready()
    assert "No module named 'no'" in capfd.readouterr().err
    launch(bench, "", None)
    assert bench.exit().code == 0
