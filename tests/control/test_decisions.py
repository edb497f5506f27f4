"""The pure halves of the loops: who goes on, what is loaded, whom a request means."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.control.deployments import decide as decide_adapters
from tunesmith.control.routing import asked_for
from tunesmith.control.scheduler import PREPARED_AT_ONCE
from tunesmith.control.scheduler import decide as decide_jobs
from tunesmith.errors import Invalid
from tunesmith.refs import Ref
from tunesmith.store.adapters import ServableAdapter
from tunesmith.store.filesets import Snapshot, StoredFile


def job(name: str) -> Any:
    return SimpleNamespace(id=name)


def adapter(name: str, digest: str = "d1") -> ServableAdapter:
    return ServableAdapter(Ref("default", name), Snapshot(f"default/{name}", (StoredFile("w", digest, 1),), ""))


def test_the_oldest_waiting_jobs_are_prepared_as_far_as_there_is_room() -> None:
    waiting = [job("a"), job("b"), job("c")]
    assert [each.id for each in decide_jobs(waiting, 0, [], []).prepare] == ["a", "b"][:PREPARED_AT_ONCE]
    assert [each.id for each in decide_jobs(waiting, PREPARED_AT_ONCE - 1, [], []).prepare] == ["a"]
    assert decide_jobs(waiting, PREPARED_AT_ONCE + 5, [], []).prepare == ()


def test_prepared_jobs_take_free_devices_in_the_order_they_came() -> None:
    queued = [job("a"), job("b")]
    assert decide_jobs([], 0, queued, ["cpu:1"]).train == ((queued[0], "cpu:1"),)
    assert decide_jobs([], 0, queued, []).train == ()
    assert decide_jobs([], 0, [], ["cpu:0"]).train == ()


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
