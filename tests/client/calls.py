"""Every call of the SDK: with what arguments it asks which route for what."""

from __future__ import annotations

from typing import Any, NamedTuple

import httpx

from tests.client import samples
from tests.client.samples import page


class Call(NamedTuple):
    method: str
    """Dotted, below the client."""
    arguments: dict[str, Any]
    verb: str
    route: str
    answer: Any
    body: Any = None
    parts: dict[str, str] = {}
    query: str = ""

    @property
    def backend(self) -> str:
        """The dialect that a call of `client.customization` speaks."""
        return self.method.removeprefix("customization.").partition(".")[0]


def customization(below: str, route: str, spec: dict[str, Any], job: dict[str, Any]) -> list[Call]:
    """The calls of one dialect, or of the shorthand."""
    jobs, one = f"customization.{below}jobs", {"name": "first"}
    return [
        Call(
            f"{jobs}.create",
            {"workspace": "ws", "name": "first", "spec": spec},
            "POST",
            f"{route}_JOBS",
            job,
            body={"name": "first", "spec": spec},
            parts={"workspace": "ws"},
        ),
        Call(f"{jobs}.list", {}, "GET", f"{route}_JOBS", page(job)),
        Call(f"{jobs}.retrieve", one, "GET", f"{route}_JOB", job),
        Call(f"{jobs}.get_status", one, "GET", f"{route}_JOB_STATUS", samples.state("active")),
        Call(f"{jobs}.cancel", one, "POST", f"{route}_JOB_CANCEL", job),
        Call(f"{jobs}.delete", one, "DELETE", f"{route}_JOB", httpx.Response(204)),
        Call(
            f"{jobs}.get_logs",
            {"name": "first", "limit": 5, "page_cursor": "a/b"},
            "GET",
            f"{route}_JOB_LOGS",
            samples.LOG_PAGE,
            query="limit=5&page_cursor=a%2Fb",
        ),
    ]


CALLS = [
    Call("live", {}, "GET", "HEALTH_LIVE", {"status": "ok"}),
    Call("health", {}, "GET", "HEALTH_READY", {"status": "ready"}),
    Call("status", {}, "GET", "STATUS", {}),
    Call("cluster_info", {}, "GET", "CLUSTER_INFO", {"platform_version": "0.3.0"}),
    Call("auth_discovery", {}, "GET", "AUTH_DISCOVERY", {"auth_enabled": False}),
    Call("gc", {"dry_run": True}, "POST", "COLLECT_GARBAGE", samples.COLLECTED, body={"dry_run": True}),
    Call("customization.health", {}, "GET", "CUSTOMIZATION_HEALTH", {"status": "ok"}),
    Call(
        "previews.create",
        {"model": "smol", "dataset": "triage", "rows": 1, "workspace": "ws"},
        "POST",
        "PREVIEWS",
        samples.PREVIEW,
        body={"model": "smol", "dataset": "triage", "rows": 1},
        parts={"workspace": "ws"},
    ),
    Call("workspaces.create", {"name": "ws"}, "POST", "WORKSPACES", samples.WORKSPACE, body={"name": "ws"}),
    Call(
        "workspaces.update",
        {"name": "ws", "description": ""},
        "PUT",
        "WORKSPACE",
        samples.WORKSPACE,
        body={"description": ""},
    ),
    Call("workspaces.delete", {"name": "ws"}, "DELETE", "WORKSPACE", samples.DELETED),
    Call(
        "workspaces.members.create",
        {"principal": "a@b", "roles": ["Viewer"]},
        "POST",
        "MEMBERS",
        samples.MEMBER,
        body={"principal": "a@b", "roles": ["Viewer"]},
    ),
    Call("workspaces.members.list", {"workspace": "ws"}, "GET", "MEMBERS", {"data": []}, parts={"workspace": "ws"}),
    Call(
        "workspaces.members.update",
        {"principal_id": "a@b", "roles": ["Admin"]},
        "PUT",
        "MEMBER",
        samples.MEMBER,
        body={"roles": ["Admin"]},
        parts={"principal": "a@b"},
    ),
    Call(
        "workspaces.members.delete",
        {"principal_id": "a@b"},
        "DELETE",
        "MEMBER",
        samples.DELETED,
        parts={"principal": "a@b"},
    ),
    Call("projects.create", {"name": "mail"}, "POST", "PROJECTS", samples.PROJECT, body={"name": "mail"}),
    Call("projects.list", {"workspace": "-"}, "GET", "PROJECTS", page(samples.PROJECT), parts={"workspace": "-"}),
    Call("projects.retrieve", {"name": "mail"}, "GET", "PROJECT", samples.PROJECT),
    Call(
        "projects.update",
        {"name": "mail", "description": "x"},
        "PUT",
        "PROJECT",
        samples.PROJECT,
        body={"description": "x"},
    ),
    Call("projects.delete", {"name": "ws/mail"}, "DELETE", "PROJECT", samples.DELETED, parts={"workspace": "ws"}),
    Call(
        "secrets.create",
        {"name": "hf", "value": "s3cret", "project": "mail"},
        "POST",
        "SECRETS",
        samples.SECRET,
        body={"name": "hf", "value": "s3cret", "project": "mail"},
    ),
    Call("secrets.list", {}, "GET", "SECRETS", page(samples.SECRET)),
    Call("secrets.retrieve", {"name": "hf"}, "GET", "SECRET", samples.SECRET),
    Call("secrets.update", {"name": "hf", "value": "n3w"}, "PATCH", "SECRET", samples.SECRET, body={"value": "n3w"}),
    Call("secrets.delete", {"name": "hf"}, "DELETE", "SECRET", httpx.Response(204)),
    Call("secrets.access", {"name": "hf"}, "GET", "SECRET_ACCESS", {"value": "x"}),
    Call("secrets.rotate", {}, "POST", "ROTATE_KEYS", {"rotated_secrets": 1, "success": True}),
    Call(
        "files.filesets.update",
        {"name": "triage", "metadata": {"dataset": {"schema": {"type": "object"}}}},
        "PATCH",
        "FILESET",
        samples.FILESET,
        body={"metadata": {"dataset": {"schema": {"type": "object"}}}},
    ),
    Call("files.filesets.delete", {"name": "triage"}, "DELETE", "FILESET", samples.FILESET),
    Call(
        "models.update",
        {"name": "smol", "base_model": "other", "custom_fields": {}},
        "PATCH",
        "MODEL",
        samples.MODEL,
        body={"base_model": "other", "custom_fields": {}},
    ),
    Call("models.delete", {"name": "smol"}, "DELETE", "MODEL", httpx.Response(204)),
    Call(
        "models.create_adapter",
        {"model_name": "smol", "workspace": "ws", "name": "mine", "fileset": "ws/w", "finetuning_type": "lora"},
        "POST",
        "MODEL_ADAPTERS",
        samples.ADAPTER,
        body={"name": "mine", "fileset": "ws/w", "finetuning_type": "lora"},
        parts={"name": "smol", "workspace": "ws"},
    ),
    Call(
        "models.adapters.create",
        {"model_name": "smol", "name": "mine", "fileset": "w", "enabled": False, "lora_config": {"rank": 8}},
        "POST",
        "MODEL_ADAPTERS",
        samples.ADAPTER,
        body={"name": "mine", "fileset": "w", "finetuning_type": "lora", "enabled": False, "lora_config": {"rank": 8}},
        parts={"name": "smol"},
    ),
    Call(
        "models.adapters.delete",
        {"adapter": "mine", "model_name": "smol"},
        "DELETE",
        "MODEL_ADAPTER",
        httpx.Response(204),
        parts={"name": "smol", "adapter": "mine"},
    ),
    Call(
        "adapters.create",
        {"name": "mine", "model": "smol", "fileset": "w"},
        "POST",
        "ADAPTERS",
        samples.ADAPTER,
        body={"name": "mine", "model": "smol", "fileset": "w", "finetuning_type": "lora"},
    ),
    Call("adapters.delete", {"name": "mine"}, "DELETE", "ADAPTER", httpx.Response(204)),
    Call("workspaces.list", {}, "GET", "WORKSPACES", page(samples.WORKSPACE)),
    Call("workspaces.retrieve", {"name": "default"}, "GET", "WORKSPACE", samples.WORKSPACE, parts={"name": "default"}),
    Call(
        "files.filesets.create",
        {"name": "triage", "purpose": "dataset"},
        "POST",
        "FILESETS",
        samples.FILESET,
        body={"name": "triage", "purpose": "dataset"},
    ),
    Call("files.filesets.list", {}, "GET", "FILESETS", page(samples.FILESET)),
    Call(
        "files.filesets.retrieve", {"name": "ws/triage"}, "GET", "FILESET", samples.FILESET, parts={"workspace": "ws"}
    ),
    Call(
        "files.list",
        {"fileset": "triage", "remote_path": "a b/"},
        "GET",
        "FILESET_FILES",
        {"data": [samples.FILE]},
        query="path=a+b%2F",
    ),
    Call(
        "files.upload_content",
        {"content": "abc", "remote_path": "a/ü b.txt", "fileset": "triage"},
        "PUT",
        "FILE",
        samples.FILE,
        parts={"path": "a/ü b.txt"},
    ),
    Call(
        "files.download_content",
        {"fileset": "ws/triage", "remote_path": "a/100%25.txt"},
        "GET",
        "FILE",
        {},
        parts={"path": "a/100%25.txt", "workspace": "ws"},
    ),
    Call(
        "files.delete",
        {"fileset": "triage", "remote_path": "a/b"},
        "DELETE",
        "FILE",
        samples.FILE,
        parts={"path": "a/b"},
    ),
    Call(
        "models.create",
        {"name": "smol", "fileset": "default/smol"},
        "POST",
        "MODELS",
        samples.MODEL,
        body={"name": "smol", "fileset": "default/smol"},
    ),
    Call("models.list", {"page_size": 5, "sort": "-name"}, "GET", "MODELS", page(), query="page_size=5&sort=-name"),
    Call(
        "models.retrieve",
        {"name": "smol", "verbose": True},
        "GET",
        "MODEL",
        samples.MODEL,
        parts={"name": "smol"},
        query="verbose=true",
    ),
    Call(
        "models.update_adapter",
        {"model_name": "smol", "workspace": "ws", "adapter_name": "triage", "enabled": False},
        "PATCH",
        "MODEL_ADAPTER",
        samples.ADAPTER,
        body={"enabled": False},
        parts={"name": "smol", "adapter": "triage", "workspace": "ws"},
    ),
    Call(
        "models.adapters.update",
        {"adapter": "triage", "model_name": "smol", "description": "new"},
        "PATCH",
        "MODEL_ADAPTER",
        samples.ADAPTER,
        body={"description": "new"},
        parts={"name": "smol", "adapter": "triage"},
    ),
    Call("adapters.list", {}, "GET", "ADAPTERS", page(samples.ADAPTER)),
    Call("adapters.retrieve", {"name": "triage"}, "GET", "ADAPTER", samples.ADAPTER),
    Call(
        "adapters.update", {"name": "triage", "enabled": True}, "PATCH", "ADAPTER", samples.ADAPTER, {"enabled": True}
    ),
    *(
        call
        for backend, spec in samples.SPECS.items()
        for call in customization(f"{backend}.", "BACKEND", spec, samples.JOBS[backend])
    ),
    *customization("", "SHORTHAND", samples.SHORTHAND, samples.SHORTHAND_JOB),
    Call(
        "jobs.list",
        {"status": "error"},
        "GET",
        "JOBS",
        page(samples.JOB),
        query="page_size=100&filter%5Bstatus%5D=error",
    ),
    Call("jobs.retrieve", {"name": "first"}, "GET", "JOB", samples.JOB),
    Call("jobs.get_status", {"name": "first"}, "GET", "JOB_STATUS", samples.state("active")),
    Call("jobs.cancel", {"name": "first"}, "POST", "JOB_CANCEL", samples.JOB),
    Call("jobs.pause", {"name": "first"}, "POST", "JOB_PAUSE", samples.JOB),
    Call("jobs.resume", {"name": "ws/first"}, "POST", "JOB_RESUME", samples.JOB, parts={"workspace": "ws"}),
    Call("jobs.delete", {"name": "first"}, "DELETE", "JOB", httpx.Response(204)),
    Call("jobs.metrics", {"name": "first"}, "GET", "JOB_METRICS", {"train_loss": [{"step": 1, "value": 2.0}]}),
    Call("jobs.get_logs", {"name": "first"}, "GET", "JOB_LOGS", samples.LOG_PAGE),
    Call(
        "jobs.events",
        {"name": "first", "cursor": "abc", "kinds": ["status", "log"]},
        "GET",
        "JOB_EVENTS",
        samples.stream(samples.frame("end", "abd", samples.state("completed"))),
        query="cursor=abc&kinds=status&kinds=log",
    ),
    Call(
        "jobs.webhooks.create",
        {"name": "ws/tell", "url": "https://here/hook", "secret": "key", "statuses": ["completed", "error"]},
        "POST",
        "WEBHOOKS",
        samples.WEBHOOK,
        body={"name": "tell", "url": "https://here/hook", "secret": "key", "statuses": ["completed", "error"]},
        parts={"workspace": "ws"},
    ),
    Call("jobs.webhooks.list", {}, "GET", "WEBHOOKS", page(samples.WEBHOOK)),
    Call("jobs.webhooks.retrieve", {"name": "tell"}, "GET", "WEBHOOK", samples.WEBHOOK),
    Call("jobs.webhooks.delete", {"name": "tell"}, "DELETE", "WEBHOOK", httpx.Response(204)),
    Call(
        "inference.deployment_configs.create",
        {"name": "smol", "model_spec": {"model_name": "smol", "lora_enabled": True}, "executor_config": {"gpu": 1}},
        "POST",
        "DEPLOYMENT_CONFIGS",
        samples.CONFIG,
        body={
            "name": "smol",
            "engine": "nim",
            "model_spec": {"model_name": "smol", "lora_enabled": True},
            "executor_config": {"gpu": 1},
        },
    ),
    Call("inference.deployment_configs.retrieve", {"name": "c"}, "GET", "DEPLOYMENT_CONFIG", samples.CONFIG),
    Call("inference.deployment_configs.delete", {"name": "c"}, "DELETE", "DEPLOYMENT_CONFIG", httpx.Response(204)),
    Call(
        "inference.deployments.create",
        {"name": "d", "config": "c"},
        "POST",
        "DEPLOYMENTS",
        samples.DEPLOYMENT,
        body={"name": "d", "config": "c"},
    ),
    Call("inference.deployments.retrieve", {"name": "d"}, "GET", "DEPLOYMENT", samples.DEPLOYMENT),
    Call("inference.deployments.delete", {"name": "d"}, "DELETE", "DEPLOYMENT", httpx.Response(202, text="null")),
    Call(
        "inference.gateway.openai.post",
        {"uri": "v1/chat/completions", "body": {"model": "m"}},
        "POST",
        "GATEWAY_OPENAI",
        samples.ANSWER,
        body={"model": "m"},
        parts={"uri": "v1/chat/completions"},
    ),
    Call(
        "inference.gateway.openai.get",
        {"uri": "v1/models/ws/m"},
        "GET",
        "GATEWAY_OPENAI",
        {},
        parts={"uri": "v1/models/ws/m"},
    ),
    Call(
        "inference.gateway.model.post",
        {"uri": "v1/completions", "name": "m", "body": {"prompt": "a"}},
        "POST",
        "GATEWAY_MODEL",
        samples.ANSWER,
        body={"prompt": "a"},
        parts={"uri": "v1/completions", "name": "m"},
    ),
    Call(
        "inference.gateway.provider.post",
        {"uri": "/v1/completions", "name": "d", "body": {}},
        "POST",
        "GATEWAY_PROVIDER",
        samples.ANSWER,
        body={},
        parts={"uri": "v1/completions", "name": "d"},
    ),
    Call("inference.gateway.provider.ready", {"name": "d"}, "GET", "GATEWAY_PROVIDER_READY", {"ready": True}),
    Call(
        "inference.chat",
        {"model": "triage", "messages": [{"role": "user", "content": "hi"}], "temperature": 0},
        "POST",
        "GATEWAY_OPENAI",
        samples.ANSWER,
        body={
            "model": "triage",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": False,
            "temperature": 0,
        },
        parts={"uri": "v1/chat/completions"},
    ),
    Call(
        "inference.complete",
        {"model": "triage", "prompt": "Once"},
        "POST",
        "GATEWAY_OPENAI",
        samples.ANSWER,
        body={"model": "triage", "prompt": "Once", "stream": False},
        parts={"uri": "v1/completions"},
    ),
]

MADE_OF_OTHERS = {
    "files.upload",
    "files.download",
    "jobs.wait",
    "jobs.follow_logs",
    "models.wait",
    "inference.deployments.wait",
    "models.get_openai_route_base_url",
    "models.get_model_entity_route_openai_url",
    "models.get_provider_route_openai_url_for_deployment",
    "models.get_openai_client",
    "close",
}
"""Calls without a route of their own."""

NOT_BUILT = "the platform does not have it yet"
NOT_ASKED = {
    "HUB": "what the Hugging Face libraries ask, by HF_ENDPOINT",
    "LEGACY": "what the client of the older microservice asks",
    "BACKEND_JOB_RESULT": NOT_BUILT,
    "BACKEND_JOB_DOWNLOAD": NOT_BUILT,
    "JOB_STEP": NOT_BUILT,
    "JOB_TASK": NOT_BUILT,
    "JOB_STATUS_DETAILS": NOT_BUILT,
    "JOB_RESULT": NOT_BUILT,
    "JOB_DOWNLOAD": NOT_BUILT,
    "EXECUTION_PROFILES": NOT_BUILT,
}
"""Beginnings of the names of paths without a call, each with its reason."""
