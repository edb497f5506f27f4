"""Every operation of our OpenAPI has a method of the SDK, and every method asks an operation that there is."""

from __future__ import annotations

import re
from pathlib import Path

from tests.client.calls import CALLS
from tunesmith.api import paths
from tunesmith.server.app import create_app
from tunesmith.settings import Settings

GATEWAY = "the gateway passes on whatever stands behind it; `inference.gateway` asks it by `post` and `get`"
OTHERS = (paths.HUB + "/", "/v1/")
"""Where other clients ask: the Hugging Face libraries, by HF_ENDPOINT, and that of the older microservice."""
NO_METHOD = {
    "HEAD /apis/files/v2/workspaces/{}/filesets/{}/-/{}": "a download looks at the list, which has the sizes",
    "GET /apis/inference-gateway/v2/workspaces/{}/openai/-/v1/models": GATEWAY,
    "GET /apis/inference-gateway/v2/workspaces/{}/openai/-/v1/models/{}": GATEWAY,
}
"""Operations without a method, each with its reason; besides OTHERS."""

NO_OPERATION = {"GET /apis/inference-gateway/v2/workspaces/{}/openai/-/{}": GATEWAY}
"""Methods without an operation of their own, each with its reason."""

METHODS = {"get", "put", "post", "patch", "delete", "head"}


def shape(operation: str) -> str:
    """Without the names of the path's parameters."""
    return re.sub(r"\{[^}]*\}", "{}", operation)


def test_every_operation_has_a_method_and_the_reverse(tmp_path: Path) -> None:
    document = create_app(Settings(data_dir=tmp_path)).openapi()
    offered = {
        shape(f"{method.upper()} {path}")
        for path, methods in document["paths"].items()
        for method in METHODS & methods.keys()
        if not path.startswith(OTHERS)
    }
    asked = {shape(f"{call.verb} {getattr(paths, call.route)}".replace("{backend}", call.backend)) for call in CALLS}
    assert offered - asked == NO_METHOD.keys(), "write the method, or take the reason out"
    assert asked - offered == NO_OPERATION.keys(), "the SDK asks for what is not there"
