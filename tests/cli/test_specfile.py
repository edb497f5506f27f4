"""Job files and `--set`."""

from __future__ import annotations

import pytest

from tunesmith.cli import specfile
from tunesmith.errors import Invalid


@pytest.mark.parametrize(
    ("assignment", "spec"),
    [
        ("a=1", {"a": 1}),
        ("a.b.c=64", {"a": {"b": {"c": 64}}}),
        ("spec.a=1", {"a": 1}),
        ("a=true", {"a": True}),
        ("a=null", {"a": None}),
        ("a=", {"a": None}),
        ("a=x=y", {"a": "x=y"}),
        ("a=[q_proj, v_proj]", {"a": ["q_proj", "v_proj"]}),
        ("a={b: 1}", {"a": {"b": 1}}),
        ("a='3'", {"a": "3"}),
    ],
)
def test_values_are_yaml(assignment, spec):
    made = {}
    specfile.assign(made, assignment)
    assert made == spec


def test_what_stands_beside_stays():
    spec = {"training": {"lora": {"rank": 8, "alpha": 16}, "epochs": None}}
    specfile.assign(spec, "training.lora.rank=64")
    specfile.assign(spec, "training.epochs.x=1")
    assert spec == {"training": {"lora": {"rank": 64, "alpha": 16}, "epochs": {"x": 1}}}


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("a", "write path=value"),
        ("=1", "write path=value"),
        ("a..b=1", "write path=value"),
        ("a=[1", "is not YAML"),
        ("b.c=1", "b is the value '3', so it has no parts"),
        ("d.0=1", "d is a list"),
    ],
)
def test_what_cannot_be_set_says_why(assignment, said):
    with pytest.raises(Invalid, match=said):
        specfile.assign({"b": 3, "d": [1]}, assignment)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "neither YAML nor JSON"),
        ("- a", "must hold a mapping .* it holds a list"),
        ("", "it holds nothing"),
        ("spec: 3", "`spec` must be a mapping"),
        ("spec: {}\nmodel: x", "model must stand inside of `spec`"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path, text, said):
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(Invalid, match=said):
        specfile.read(str(tmp_path / "job.yaml"))


def test_json_and_yaml_say_the_same(tmp_path):
    (tmp_path / "a.json").write_text('{"backend": "automodel",\n\t"model": "m", "batch": {"global_batch_size": 8}}')
    (tmp_path / "a.yaml").write_text("backend: automodel\nmodel: m\nbatch:\n  global_batch_size: 8\n")
    read = [specfile.read(str(tmp_path / name)) for name in ("a.json", "a.yaml")]
    assert read[0] == read[1] == specfile.JobFile({"model": "m", "batch": {"global_batch_size": 8}})


def written(tmp_path, text):
    (tmp_path / "job.yaml").write_text(text)
    return str(tmp_path / "job.yaml")


def test_a_name_may_stand_beside_the_fields(tmp_path):
    path = written(tmp_path, "name: first\nproject: mail\nmodel: m\n")
    assert specfile.read(path) == specfile.JobFile({"model": "m"}, name="first", project="mail")


def test_the_command_line_and_the_file_may_not_contradict(tmp_path):
    path = written(tmp_path, "backend: unsloth\nmodel: {name: m}\n")
    assert specfile.read(path, backend="unsloth").backend == "unsloth"
    with pytest.raises(Invalid, match=r"--backend rl: .* says `backend: unsloth`; change the one or the other"):
        specfile.read(path, backend="rl")


def test_an_unknown_backend_is_told_which_there_are(tmp_path):
    with pytest.raises(Invalid, match="backend 'axolotl' is none of automodel, unsloth and rl"):
        specfile.read(written(tmp_path, "backend: axolotl\n"))


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("model: m\ndataset: {training: d}\ntraining: {}\n", "automodel"),
        ("model: m\ndataset: d\ntraining: {type: sft, peft: {rank: 8}}\n", "shorthand"),
        ("model: m\ndataset: d\ntraining: {type: sft, epochs: 2}\n", "shorthand"),
        ("model: m\ndataset: d\ntraining: {type: dpo, peft: {rank: 8}}\n", "shorthand"),
        ("model: m\ndataset: d\ntraining: {epochs: 2}\n", "automodel"),
        ("model: m\ndataset: {training: d}\ntraining: {}\nhardware: {}\n", "automodel"),
    ],
)
def test_a_file_that_does_not_say_whose_it_is(tmp_path, text, backend):
    assert specfile.read(written(tmp_path, text)).backend == backend


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("model: {name: m}\ndataset: {path: d}\n", "unsloth"),
        ("model: m\ndataset: d\ntraining: {type: dpo, epochs: 2}\n", "rl"),
        ("model: m\ndataset: d\ntraining: {type: grpo}\n", "rl"),
    ],
)
def test_a_file_that_fits_another_backend_only_is_told_so(tmp_path, text, backend):
    path = written(tmp_path, text)
    with pytest.raises(Invalid, match=f"written for the {backend} backend.*--backend {backend}"):
        specfile.read(path)
    assert specfile.read(path, backend=backend).backend == backend
