"""Filesets through the unmodified library of Hugging Face, and what its routes say when something is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi, HfFileSystem, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

from tests.live import FILES, LiveServer, Wire, checkpoint

HUB = "/apis/files/v2/hf"
BIG = bytes(range(256)) * 50_000  # 12.8 MB: shown as a large file


@pytest.fixture
def endpoint(live: LiveServer, wire: Wire) -> str:
    wire.fileset("base", {"config.json": b'{"a": 1}', "nested/deep/weights.bin": BIG, "nested/note é.txt": b"note"})
    return live.url + HUB


@pytest.fixture
def api(endpoint: str) -> HfApi:
    return HfApi(endpoint=endpoint, token=False)


def test_a_fileset_is_a_repository_with_a_revision_of_its_files(api: HfApi, wire: Wire) -> None:
    info = api.model_info("default/base")
    assert info.id == "default/base"
    assert len(info.sha or "") == 40
    assert sorted(each.rfilename for each in info.siblings or []) == [
        "config.json",
        "nested/deep/weights.bin",
        "nested/note é.txt",
    ]
    assert api.model_info("default/base", revision=info.sha).sha == info.sha
    assert api.dataset_info("default/base").sha == info.sha
    wire.http.put(f"{FILES}/base/-/config.json", content=b"{}")
    changed = api.model_info("default/base").sha
    assert changed != info.sha
    with pytest.raises(RevisionNotFoundError, match="it has no history"):
        api.model_info("default/base", revision=info.sha)
    wire.http.put(f"{FILES}/base/-/config.json", content=b'{"a": 1}')
    assert api.model_info("default/base").sha == info.sha


def test_trees_and_paths_are_listed(api: HfApi) -> None:
    assert min(api.list_repo_files("default/base")) == "config.json"
    top = {each.path: type(each).__name__ for each in api.list_repo_tree("default/base")}
    assert top == {"config.json": "RepoFile", "nested": "RepoFolder"}
    below = [each.path for each in api.list_repo_tree("default/base", "nested", recursive=True, expand=True)]
    assert sorted(below) == ["nested/deep", "nested/deep/weights.bin", "nested/note é.txt"]
    asked = ["nested", "nested/deep/weights.bin", "nothing"]
    folder, weights = api.get_paths_info("default/base", asked, expand=True)
    assert (folder.path, weights.path) == ("nested", "nested/deep/weights.bin")
    assert weights.lfs.size == weights.size == len(BIG)
    assert weights.last_commit.oid == api.model_info("default/base").sha
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("default/base", "nothing"))


def test_files_are_downloaded_and_cached_until_they_change(endpoint: str, tmp_path: Path, wire: Wire) -> None:
    where = {"endpoint": endpoint, "token": False, "cache_dir": tmp_path / "cache"}
    path = Path(hf_hub_download("default/base", "nested/deep/weights.bin", **where))
    assert path.read_bytes() == BIG
    folder = Path(snapshot_download("default/base", **where))
    assert (folder / "nested/note é.txt").read_bytes() == b"note"
    wire.http.put(f"{FILES}/base/-/config.json", content=b"other")
    assert Path(hf_hub_download("default/base", "config.json", **where)).read_bytes() == b"other"


def test_parts_are_read_through_the_file_system(endpoint: str) -> None:
    files = HfFileSystem(endpoint=endpoint, token=False, skip_instance_cache=True)
    assert [each["name"] for each in files.ls("default/base/nested/deep")] == ["default/base/nested/deep/weights.bin"]
    with files.open("default/base/nested/deep/weights.bin", "rb", block_size=1 << 20) as file:
        file.seek(5_000_000)
        assert file.read(1000) == BIG[5_000_000:5_001_000]


def test_what_is_missing_is_said_in_the_librarys_own_exceptions(api: HfApi, endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("default/nothing")
    where = {"endpoint": endpoint, "token": False, "cache_dir": tmp_path}
    with pytest.raises(EntryNotFoundError):
        hf_hub_download("default/base", "nothing.txt", **where)
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("default/base", "config.json", revision="v1", **where)


def test_a_reader_that_has_the_bytes_gets_304(endpoint: str, wire: Wire) -> None:
    where = f"{HUB}/default/base/resolve/main/config.json"
    head = wire.http.head(where)
    assert head.headers["x-linked-size"] == head.headers["content-length"] == "8"
    assert head.headers["x-linked-etag"] == head.headers["etag"]
    assert wire.http.get(where, headers={"if-none-match": head.headers["etag"]}).status_code == 304
    assert wire.http.get(where, headers={"range": "bytes=1-3"}).content == b'"a"'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("application/json", b'{"paths": 1}'),
        ("application/json", b'{"paths": [1]}'),
        ("application/x-www-form-urlencoded", b"colour=red"),
        ("application/x-www-form-urlencoded", b"paths=" + b"&paths=".join([b"x"] * 1001)),
    ],
)
def test_a_question_for_paths_that_cannot_be_read_is_400(endpoint: str, wire: Wire, kind: str, body: bytes) -> None:
    where = f"{HUB}/api/models/default/base/paths-info/main"
    answer = wire.http.post(where, content=body, headers={"content-type": kind})
    assert answer.status_code == 400, answer.text


LOAD = """
from transformers import AutoConfig, AutoTokenizer
print(AutoConfig.from_pretrained("default/small").hidden_size)
print(AutoTokenizer.from_pretrained("default/small")("w1").input_ids)
"""


def test_transformers_loads_a_fileset_by_its_name(live: LiveServer, wire: Wire, tmp_path: Path) -> None:
    files = checkpoint()
    wire.fileset("small", {**files, "tokenizer_config.json": b'{"tokenizer_class": "PreTrainedTokenizerFast"}'})
    environment = {"HF_ENDPOINT": live.url + HUB, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOAD], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["8", "[4]"]
