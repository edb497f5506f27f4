"""Which files of an upload are training rows and which are validation rows."""

from __future__ import annotations

import pytest

from tunesmith.data.find import find_training, find_validation


@pytest.mark.parametrize(
    ("files", "training", "validation", "unused"),
    [
        (["train.jsonl"], ["train.jsonl"], [], []),
        (["training_1.jsonl", "training_2.jsonl"], ["training_1.jsonl", "training_2.jsonl"], [], []),
        (["only.jsonl"], ["only.jsonl"], [], []),
        (["a.jsonl", "b.jsonl"], ["a.jsonl", "b.jsonl"], [], []),
        (["a.jsonl", "info.json"], ["a.jsonl"], [], ["info.json"]),
        (["rows.json"], ["rows.json"], [], []),
        (["a.jsonl", "dev.jsonl"], ["a.jsonl"], ["dev.jsonl"], []),
        (["train/a.jsonl", "val/b.jsonl"], ["train/a.jsonl"], ["val/b.jsonl"], []),
        (["up/train/a.jsonl", "up/dev/b.jsonl"], ["up/train/a.jsonl"], ["up/dev/b.jsonl"], []),
        (["up/train.jsonl", "up/validation.jsonl"], ["up/train.jsonl"], ["up/validation.jsonl"], []),
        (["train.jsonl", "test.jsonl"], ["train.jsonl"], [], ["test.jsonl"]),
        (["train.jsonl", ".hidden.jsonl"], ["train.jsonl"], [], []),
    ],
)
def test_names_say_what_a_file_is_for(tmp_path, files, training, validation, unused):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_training(tmp_path)
    names = [[str(path.relative_to(tmp_path)) for path in paths] for paths in (found.training, found.validation)]
    assert names == [training, validation]
    assert [str(path.relative_to(tmp_path)) for path in found.unused] == unused


def test_a_validation_fileset_may_call_its_file_anything(tmp_path):
    (tmp_path / "train.jsonl").touch()
    assert [path.name for path in find_validation(tmp_path).validation] == ["train.jsonl"]
    (tmp_path / "val.jsonl").touch()
    assert [path.name for path in find_validation(tmp_path).validation] == ["val.jsonl"]
