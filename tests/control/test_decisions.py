"""The pure halves of the loops: who goes on, what is loaded, whom a request means."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.control.deployments import decide as decide_adapters
from tunesmith.control.routing import asked_for
from tunesmith.control.scheduler import assign, order
from tunesmith.errors import Invalid
from tunesmith.refs import Ref
from tunesmith.store.adapters import ServableAdapter
from tunesmith.store.filesets import Snapshot, StoredFile
from tunesmith.store.jobs import Waiting

START = datetime.fromisoformat("2026-01-01T00:00:00")


def job(name: str, workspace: str = "default", at: int = 1, **values: Any) -> Waiting:
    values = {"priority": 0, **values}
    return Waiting(name, workspace, created_at=START + timedelta(seconds=at), **values)


def adapter(name: str, digest: str = "d1") -> ServableAdapter:
    return ServableAdapter(Ref("default", name), Snapshot(f"default/{name}", (StoredFile("w", digest, 1),), ""))


def names(turns: Any) -> list[tuple[str, tuple[str, ...]]]:
    return [(turn.job.id, turn.devices) for turn in turns]


def test_the_oldest_goes_first_and_a_higher_priority_before_it() -> None:
    queue = [job("old"), job("new", at=2), job("urgent", at=3, priority=1), job("idle", priority=-1)]
    assert [each.id for each in order(queue, {})] == ["urgent", "old", "new", "idle"]


def test_a_burst_of_one_workspace_does_not_keep_another_waiting() -> None:
    queue = [*(job(f"a{n}", at=n) for n in range(4)), job("b0", "team-b", at=9), job("b1", "team-b", at=10)]
    assert [each.id for each in order(queue, {})] == ["a0", "b0", "a1", "b1", "a2", "a3"]
    assert order(queue, {"default": 1})[0].id == "b0", "the other has a device already"


def test_jobs_take_free_devices_in_their_order() -> None:
    queue = [job("a"), job("b", at=2)]
    assert names(assign(queue, ["cpu:1"])) == [("a", ("cpu:1",)), ("b", ())]
    assert names(assign(queue, [])) == [("a", ()), ("b", ())]
    assert assign([], ["cpu:0"]) == []


def test_a_large_job_keeps_what_is_free_and_is_not_passed() -> None:
    large, small = job("large", devices=2), job("small", at=2)
    turns = assign([large, small], ["gpu:0"])
    assert names(turns) == [("large", ()), ("small", ())]
    assert turns[0].kept == ("gpu:0",)
    assert names(assign([large, small], ["gpu:0", "gpu:1", "gpu:2"])) == [
        ("large", ("gpu:0", "gpu:1")),
        ("small", ("gpu:2",)),
    ]


def test_who_waits_for_a_named_device_is_passed_by_who_does_not_need_it() -> None:
    picky, other = job("picky", named=("1",)), job("other", at=2)
    assert names(assign([picky, other], ["gpu:0"])) == [("picky", ()), ("other", ("gpu:0",))]
    assert names(assign([picky, other], ["gpu:0", "gpu:1"])) == [("picky", ("gpu:1",)), ("other", ("gpu:0",))]


@given(
    devices=st.lists(st.integers(1, 3), max_size=8),
    held=st.integers(0, 3),
    spaces=st.lists(st.sampled_from(["a", "b", "c"]), min_size=8, max_size=8),
)
def test_no_device_is_given_twice_and_the_first_that_waits_is_passed_by_nobody(
    devices: list[int], held: int, spaces: list[str]
) -> None:
    queue = [job(f"j{n}", spaces[n], at=n, devices=wanted) for n, wanted in enumerate(devices)]
    free = [f"gpu:{n}" for n in range(held, 3)]
    turns = assign(order(queue, {}), free)
    given_out = [device for turn in turns for device in turn.devices]
    assert len(given_out) == len(set(given_out))
    assert set(given_out) <= set(free)
    waiting = [turn for turn in turns if not turn.devices]
    after = turns[turns.index(waiting[0]) :] if waiting else []
    assert all(not turn.devices for turn in after)


def test_missing_adapters_are_loaded_and_unwanted_ones_unloaded() -> None:
    a, b = adapter("a"), adapter("b")
    changes = decide_adapters([a, b], {a.served_name, "default--old@1"}, set())
    assert changes.load == (b,)
    assert changes.unload == ("default--old@1",)


def test_a_changed_adapter_is_another_one() -> None:
    before, after = adapter("a", "d1"), adapter("a", "d2")
    changes = decide_adapters([after], {before.served_name}, set())
    assert (changes.load, changes.unload) == ((after,), (before.served_name,))


def test_a_refused_adapter_is_not_tried_again_and_again() -> None:
    a = adapter("a")
    assert decide_adapters([a], set(), {a.served_name}).load == ()


@pytest.mark.parametrize("name", ["tuned", "default/tuned", "default--tuned", "default/base&adapters/default/tuned"])
def test_an_adapter_has_four_names(name: str) -> None:
    assert asked_for("default", name) == Ref("default", "tuned")


def test_a_name_without_sense_is_refused() -> None:
    with pytest.raises(Invalid, match="model: invalid entity reference 'a/b/c'"):
        asked_for("default", "a/b/c")
