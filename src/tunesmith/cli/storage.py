"""`--hf`, `--s3` and `--ngc`: a remote storage, in a word."""

from __future__ import annotations

from typing import Any

from tunesmith.errors import Invalid


def hugging_face(text: str, token_secret: str | None, repo_type: str | None) -> dict[str, Any]:
    """`owner/repo[@revision]` as a fileset's storage. Invalid says what was expected."""
    repo, at, revision = text.removeprefix("hf://").partition("@")
    if not repo or (at and not revision):
        raise Invalid(f"--hf {text}: write REPO or REPO@REVISION, as in --hf meta-llama/Llama-3.2-1B-Instruct@main")
    return _given(
        type="huggingface",
        repo_id=repo,
        revision=revision or None,
        repo_type=repo_type,
        token_secret=token_secret,
    )


def s3(text: str, key_id_secret: str | None, key_secret: str | None, endpoint: str | None) -> dict[str, Any]:
    """`s3://bucket/prefix` as a fileset's storage; without secrets the platform uses credentials of its own."""
    bucket, _, prefix = text.removeprefix("s3://").partition("/")
    if not text.startswith("s3://") or not bucket:
        raise Invalid(f"--s3 {text}: write s3://BUCKET or s3://BUCKET/PREFIX")
    if (key_id_secret is None) != (key_secret is None):
        raise Invalid("--access-key-id-secret and --secret-access-key-secret belong together: give both, or none")
    return _given(
        type="s3",
        bucket=bucket,
        prefix=prefix or None,
        endpoint_url=endpoint,
        use_sdk_auth=True if key_secret is None else None,
        access_key_id_secret=key_id_secret,
        secret_access_key_secret=key_secret,
    )


def ngc(text: str, token_secret: str | None, target_type: str | None) -> dict[str, Any]:
    """`org/team/target[:version]` as a fileset's storage; `org/target` where there is no team."""
    path, colon, version = text.removeprefix("ngc://").partition(":")
    parts = path.split("/")
    if len(parts) == 2:
        parts.insert(1, "")
    if len(parts) != 3 or not parts[0] or not parts[2] or (colon and not version):
        raise Invalid(f"--ngc {text}: write ORG/TEAM/TARGET:VERSION, as in --ngc nvidia/nemo/llama-3_2-1b:1.0")
    if token_secret is None:
        raise Invalid("--ngc needs --token-secret, the name of a secret that holds an NGC API key")
    org, team, target = parts
    return _given(
        type="ngc",
        org=org,
        team=team,
        target=target,
        target_type=target_type,
        version=version or None,
        api_key_secret=token_secret,
    )


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
