"""Every path of the wire, once; `{name}` parts are filled by `at()` in the SDK and by FastAPI in the server."""

from __future__ import annotations

from urllib.parse import quote

_FILES = "/apis/files/v2/workspaces/{workspace}"
_MODELS = "/apis/models/v2/workspaces/{workspace}"
_JOBS = "/apis/jobs/v2/workspaces/{workspace}"
_CUSTOMIZATION = "/apis/customization/v2/workspaces/{workspace}"
_GATEWAY = "/apis/inference-gateway/v2/workspaces/{workspace}"

HEALTH_LIVE = "/health/live"
HEALTH_READY = "/health/ready"
STATUS = "/status"
CLUSTER_INFO = "/cluster-info"
AUTH_DISCOVERY = "/apis/auth/discovery"
CUSTOMIZATION_HEALTH = "/apis/customization/v2/healthz"

WORKSPACES = "/apis/entities/v2/workspaces"
WORKSPACE = WORKSPACES + "/{name}"
MEMBERS = WORKSPACES + "/{workspace}/members"
MEMBER = MEMBERS + "/{principal}"
PROJECTS = WORKSPACES + "/{workspace}/projects"
PROJECT = PROJECTS + "/{name}"

SECRETS = "/apis/secrets/v2/workspaces/{workspace}/secrets"
SECRET = SECRETS + "/{name}"
SECRET_ACCESS = SECRET + "/access"
ROTATE_KEYS = "/apis/secrets/v2/rotate-encryption-keys"

FILESETS = _FILES + "/filesets"
FILESET = FILESETS + "/{name}"
FILESET_FILES = FILESET + "/files"
FILE = FILESET + "/-/{path}"
COLLECT_GARBAGE = "/apis/files/v2/gc"

HUB = "/apis/files/v2/hf"
HUB_MODEL = HUB + "/api/{kind}/{workspace}/{name}"
HUB_REVISION = HUB_MODEL + "/revision/{revision}"
HUB_TREE = HUB_MODEL + "/tree/{revision}"
HUB_PATHS = HUB_MODEL + "/paths-info/{revision}"
HUB_FILE = HUB + "/{workspace}/{name}/resolve/{revision}/{path}"
HUB_DATASET_FILE = HUB + "/datasets/{workspace}/{name}/resolve/{revision}/{path}"

MODELS = _MODELS + "/models"
MODEL = MODELS + "/{name}"
MODEL_ADAPTERS = MODEL + "/adapters"
MODEL_ADAPTER = MODEL_ADAPTERS + "/{adapter}"
ADAPTERS = _MODELS + "/adapters"
ADAPTER = ADAPTERS + "/{name}"

BACKEND_JOBS = _CUSTOMIZATION + "/{backend}/jobs"
BACKEND_JOB = BACKEND_JOBS + "/{name}"
BACKEND_JOB_STATUS = BACKEND_JOB + "/status"
BACKEND_JOB_CANCEL = BACKEND_JOB + "/cancel"
BACKEND_JOB_LOGS = BACKEND_JOB + "/logs"
BACKEND_JOB_RESULTS = BACKEND_JOB + "/results"
BACKEND_JOB_RESULT = BACKEND_JOB + "/results/{result}"
BACKEND_JOB_DOWNLOAD = BACKEND_JOB + "/results/{result}/download"

SHORTHAND_JOBS = _CUSTOMIZATION + "/jobs"
SHORTHAND_JOB = SHORTHAND_JOBS + "/{name}"
SHORTHAND_JOB_STATUS = SHORTHAND_JOB + "/status"
SHORTHAND_JOB_CANCEL = SHORTHAND_JOB + "/cancel"
SHORTHAND_JOB_LOGS = SHORTHAND_JOB + "/logs"

JOBS = _JOBS + "/jobs"
JOB = JOBS + "/{name}"
JOB_STATUS = JOB + "/status"
JOB_CANCEL = JOB + "/cancel"
JOB_LOGS = JOB + "/logs"
JOB_PAUSE = JOB + "/pause"
JOB_RESUME = JOB + "/resume"
JOB_METRICS = JOB + "/metrics"
JOB_EVENTS = JOB + "/events"
JOB_STATUS_DETAILS = JOB + "/status-details"
JOB_RESULTS = JOB + "/results"
JOB_RESULT = JOB + "/results/{result}"
JOB_DOWNLOAD = JOB_RESULT + "/download"
JOB_STEPS = JOB + "/steps"
JOB_STEP = JOB_STEPS + "/{step}"
JOB_STEP_STATUS = JOB_STEP + "/status"
JOB_TASKS = JOB_STEP + "/tasks"
JOB_TASK = JOB_TASKS + "/{task}"
EXECUTION_PROFILES = "/apis/jobs/v2/execution-profiles"
WEBHOOKS = _JOBS + "/webhooks"
WEBHOOK = WEBHOOKS + "/{name}"

PREVIEWS = _CUSTOMIZATION + "/previews"

DEPLOYMENT_CONFIGS = _MODELS + "/deployment-configs"
DEPLOYMENT_CONFIG = DEPLOYMENT_CONFIGS + "/{name}"
DEPLOYMENTS = _MODELS + "/deployments"
DEPLOYMENT = DEPLOYMENTS + "/{name}"

GATEWAY_OPENAI = _GATEWAY + "/openai/-/{uri}"
GATEWAY_MODEL = _GATEWAY + "/model/{name}/-/{uri}"
GATEWAY_PROVIDER = _GATEWAY + "/provider/{name}/-/{uri}"
GATEWAY_PROVIDER_READY = _GATEWAY + "/provider/{name}/ready"


def at(path: str, /, **parts: str) -> str:
    """`path` with its `{parts}` filled in, each fully percent-encoded (a slash becomes %2F)."""
    return path.format_map({key: quote(value, safe="") for key, value in parts.items()})
