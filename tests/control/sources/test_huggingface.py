"""Repositories on a hub: what is found, and what is said when it is not."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import subprocess
import sys

import pytest

from tests.control.sources.conftest import pin
from tests.control.sources.standins.hub import COMMIT, Hub, git_id
from tunesmith.api.filesets import HuggingFaceStorage
from tunesmith.control.sources import huggingface, registry
from tunesmith.errors import BadRequest, TunesmithError, Unavailable, Upstream

CANARY = "hf_canary1234567890"
WEIGHTS = bytes(range(256)) * 8
FILES = {"config.json": b"{}", "folder/weights.safetensors": WEIGHTS}


def storage(hub: Hub, **changes: str) -> HuggingFaceStorage:
    return HuggingFaceStorage.model_validate(
        {"type": "huggingface", "repo_id": "acme/tiny", "endpoint": hub.url, **changes}
    )


def test_a_revision_becomes_a_commit_and_files_have_sizes_and_tags(hub: Hub) -> None:
    hub.add("acme/tiny", FILES)
    pinned = pin(storage(hub), hub.url)
    assert isinstance(pinned.storage, HuggingFaceStorage)
    assert (pinned.storage.revision, pinned.storage.original_revision) == (COMMIT, "main")
    assert [(file.path, file.size, file.digest, file.tag) for file in pinned.files] == [
        ("config.json", 2, None, f"git:{git_id(b'{}')}"),
        ("folder/weights.safetensors", 2048, None, f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"),
    ]


def test_the_endpoint_is_the_platforms_unless_the_storage_names_one(hub: Hub) -> None:
    hub.add("acme/tiny", FILES, kind="datasets")
    pinned = pin(HuggingFaceStorage(repo_id="acme/tiny", repo_type="dataset"), hub.url)
    assert pinned.storage.endpoint == hub.url


def test_the_tree_of_a_large_repository_is_read_page_by_page(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "LARGE_REPOSITORY", 2)
    files = {**FILES, **{f"rows/{number}.jsonl": b"%d" % number for number in range(5)}}
    hub.add("acme/tiny", files)
    pinned = pin(storage(hub), hub.url)
    assert {file.path: file.size for file in pinned.files} == {path: len(content) for path, content in files.items()}
    assert pinned.files[1].tag == f"sha256:{hashlib.sha256(WEIGHTS).hexdigest()}"
    assert len([each for each in hub.asked if "/tree/" in each.path]) == 4


def test_a_private_repository_opens_with_the_token_of_its_secret(hub: Hub) -> None:
    hub.add("acme/tiny", FILES, token=CANARY)
    assert len(pin(storage(hub, token_secret="hub"), hub.url, hub=CANARY).files) == 2
    with pytest.raises(BadRequest, match=r"not visible without a token.*storage.token_secret"):
        pin(storage(hub), hub.url)


def test_the_machines_own_token_is_never_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_machine")
    hub.add("acme/tiny", FILES)
    pin(storage(hub), hub.url)
    assert hub.asked
    assert not any("authorization" in each.headers for each in hub.asked)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"repo_id": "acme/other"}, "does not exist or is not visible"),
        ({"revision": "v9"}, "has no revision 'v9': name a branch, tag or commit in storage.revision"),
        ({"repo_id": "a//b c"}, "is no repository's name"),
        ({"token_secret": "none"}, "Secret not found: Secret 'default/none' not found"),
        ({"repo_id": "acme/gated", "token_secret": "hub"}, "accept its conditions at .*/acme/gated"),
        ({"repo_id": "acme/secret", "token_secret": "hub"}, "check that the token in secret 'hub' is valid"),
    ],
)
def test_what_may_not_be_read_is_400_with_the_way_out_and_without_the_token(
    hub: Hub, changes: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.add("acme/tiny", FILES)
    hub.add("acme/gated", FILES, token="hf_another", gated=True)
    hub.add("acme/secret", FILES, token="hf_another")
    with pytest.raises(BadRequest, match=said) as refused:
        pin(storage(hub, **changes), hub.url, hub=CANARY)
    assert CANARY not in refused.value.message + caplog.text


@pytest.mark.parametrize("token", ["two words", "line\nbreak", "ünicode", ""])
def test_a_secret_that_is_no_token_is_refused_without_being_shown(hub: Hub, token: str) -> None:
    hub.add("acme/tiny", FILES)
    with pytest.raises(BadRequest, match=r"storage.token_secret: secret 'default/hub' must hold one line") as refused:
        pin(storage(hub, token_secret="hub"), hub.url, hub=token)
    assert not token or token not in refused.value.message
    assert not hub.asked


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://example.org",
        "http://127.0.0.1:1",
        "file:///etc/passwd",
        "https://huggingface.co@example.org",
        "https://user:word@huggingface.co",
        "https://huggingface.co.example.org",
        "https://huggingface.co:99999",
        "http://huggingface.co",
        "https://huggingface.co?x=1",
        "https://huggingface.co\n",
        "https://hugging\tface.co",
    ],
)
def test_an_address_that_is_not_allowed_is_never_asked(endpoint: str) -> None:
    asked = HuggingFaceStorage(repo_id="acme/tiny", endpoint=endpoint)
    with pytest.raises(
        BadRequest, match=r"(?s)Storage host or endpoint not in allowed list: Host '.*' is not in the allowed"
    ):
        pin(asked, "https://huggingface.co")


def test_a_path_below_an_allowed_address_is_allowed_and_one_beside_it_is_not(hub: Hub) -> None:
    hub.add("acme/tiny", FILES)
    with pytest.raises(BadRequest, match="not in allowed list"):
        pin(storage(hub), f"{hub.url}/mirror")
    with pytest.raises(BadRequest, match="not in allowed list"):
        pin(storage(hub, endpoint=f"{hub.url}/mirror/../other"), f"{hub.url}/mirror")
    with pytest.raises(TunesmithError, match="does not exist"):  # allowed, asked, and not there
        pin(storage(hub, endpoint=f"{hub.url}/mirror/a"), f"{hub.url}/mirror")


def test_a_hub_that_is_busy_is_asked_again_when_it_says(hub: Hub) -> None:
    hub.add("acme/tiny", FILES)
    hub.busy = [(429, "0"), (503, "")]
    assert len(pin(storage(hub), hub.url).files) == 2


def test_a_hub_that_is_busy_for_long_is_503(hub: Hub) -> None:
    hub.busy = [(429, "3600")]
    with pytest.raises(Unavailable, match=r"Storage backend unavailable: .*busy \(429\)"):
        pin(storage(hub), hub.url)
    hub.busy = [(429, "0")] * registry.ATTEMPTS
    with pytest.raises(Unavailable):
        pin(storage(hub), hub.url)


def test_a_hub_that_is_not_there_is_502(hub: Hub) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets it, and connections are refused
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Upstream, match=f"Storage backend unavailable: {nowhere}: no connection"):
            pin(storage(hub, endpoint=nowhere), nowhere)


def test_a_hub_that_fails_is_502(hub: Hub) -> None:
    hub.busy = [(500, "")]
    with pytest.raises(Upstream, match="it answered 500"):
        pin(storage(hub), hub.url)


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a//b", "a\\b", "a\nb", "x" * 1025])
def test_a_repository_whose_files_would_leave_their_directory_is_refused(hub: Hub, path: str) -> None:
    hub.add("acme/tiny", {path: b"1"})
    with pytest.raises(BadRequest, match="cannot be part of a fileset"):
        pin(storage(hub), hub.url)


def test_the_library_is_loaded_with_the_first_repository_only() -> None:
    program = "import sys, tunesmith.server.app; print([m for m in ('huggingface_hub', 'boto3') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.strip() == "[]"
