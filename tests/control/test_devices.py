"""Which devices jobs get, on machines that are made up: a program of the name nvidia-smi says what there is."""

from __future__ import annotations

import os

import pytest

from tunesmith.control.devices import discover

THREE = """#!/bin/sh
[ "$1 $2" = "--query-gpu=index,uuid --format=csv,noheader" ] || exit 6
echo "0, GPU-11aa22bb-0000"
echo "1, GPU-33cc44dd-0000"
echo "2, GPU-55ee66ff-0000"
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Puts the program into the path; call it with its text."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def made(text):
        program = tmp_path / "nvidia-smi"
        program.write_text(text)
        program.chmod(0o755)

    return made


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        (None, ("gpu:0", "gpu:1", "gpu:2")),
        ("2, 0", ("gpu:0", "gpu:2")),
        ("GPU-33cc", ("gpu:1",)),
        ("GPU-55ee66ff-0000,GPU-11aa22bb-0000", ("gpu:0", "gpu:2")),
        ("", ("cpu:0", "cpu:1")),
        ("-1", ("cpu:0", "cpu:1")),
        ("7", ("cpu:0", "cpu:1")),
    ],
)
def test_a_server_has_the_gpus_that_it_was_given(allowed, names, machine, monkeypatch):
    machine(THREE)
    if allowed is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    assert discover(2).names == names


@pytest.mark.parametrize("text", ["#!/bin/sh\nexit 9\n", "#!/bin/sh\necho No devices were found\n"])
def test_where_no_gpu_answers_there_are_slots_of_the_processor(text, machine):
    machine(text)
    assert discover(1).names == ("cpu:0",)


def test_a_job_sees_its_gpus_and_no_others(machine):
    machine(THREE)
    assert discover(1).visible(("gpu:2",)) == {"CUDA_VISIBLE_DEVICES": "2"}
