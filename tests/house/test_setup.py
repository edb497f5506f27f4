"""Set-up: which torch, when there is nothing to do, and what it says when pip fails."""

import json
import os
from pathlib import Path

import pytest

from scripts import published_client, setup
from scripts.setup import CPU_INDEX, Stamp, choose_torch, inputs_digest, offers_cpu_build, only_index, pinned

ROOT = Path(__file__).parents[2]

PIP_KNOWS = "torch (2.15.0)\nAvailable versions: 2.15.0, {} 2.12.1, 2.12.0\n"


def never():
    raise AssertionError("asked although the answer does not matter")


# --- which torch ----------------------------------------------------------------------------------------------------


def test_torch_index_overrules_everything():
    assert choose_torch("https://mirror/whl", "Linux", True, never, never).index == "https://mirror/whl"


@pytest.mark.parametrize(("system", "nvidia"), [("Darwin", False), ("Linux", True)])
def test_a_mac_or_an_nvidia_gpu_takes_the_ordinary_build(system, nvidia):
    assert choose_torch(None, system, nvidia, never, never).index is None


def test_a_cpu_build_that_pip_offers_anyway_is_taken_from_there():
    torch = choose_torch(None, "Linux", False, lambda: True, never)
    assert torch.index is None
    assert "pip's settings" in torch.because


def test_without_a_gpu_torch_comes_from_the_cpu_index():
    assert choose_torch(None, "Linux", False, lambda: False, lambda: True).index == CPU_INDEX


def test_without_the_cpu_index_the_user_hears_what_it_costs_and_the_way_out():
    torch = choose_torch(None, "Linux", False, lambda: False, lambda: False)
    assert torch.index is None
    assert all(part in torch.because for part in ("5 GB instead of 1.2 GB", "cannot be reached", "TORCH_INDEX="))


@pytest.mark.parametrize(
    ("listed", "offered"),
    [
        ("2.13.0+cpu, 2.13.0,", True),
        ("2.13.0,", False),
        ("2.13.0+cu126,", False),
        ("12.13.0+cpu,", False),
        ("2.13.0+cpu.cxx11,", False),
    ],
)
def test_a_cpu_build_is_recognised_in_pips_answer(listed, offered):
    assert offers_cpu_build(PIP_KNOWS.format(listed), "2.13.0") is offered


def test_an_index_that_is_named_is_the_only_source_but_proxy_and_certificates_stay():
    environment = {"PIP_FIND_LINKS": "/wheels", "PIP_EXTRA_INDEX_URL": "https://a", "PIP_CERT": "/mine", "HOME": "/h"}
    settings = ":env:.cert='/mine'\nglobal.cert='/theirs'\nglobal.proxy='http://p:1'\nglobal.index-url='https://m'\n"
    assert only_index("https://torch", environment, settings) == {
        "HOME": "/h",
        "PIP_CERT": "/mine",
        "PIP_PROXY": "http://p:1",
        "PIP_INDEX_URL": "https://torch",
        "PIP_CONFIG_FILE": os.devnull,
    }


def test_the_pins_name_a_torch_without_a_local_version():
    assert pinned((ROOT / "constraints.txt").read_text(), "torch").replace(".", "").isdigit()


# --- nothing to do --------------------------------------------------------------------------------------------------


def test_a_finished_environment_stays_while_nothing_changes(tmp_path):
    stamp = Stamp("digest", str(tmp_path), "https://torch")
    assert stamp.current("digest", tmp_path, None)
    assert stamp.current("digest", tmp_path, "https://torch")
    assert not stamp.current("another", tmp_path, None)
    assert not stamp.current("digest", tmp_path / "moved", None)
    assert not stamp.current("digest", tmp_path, "https://elsewhere")


@pytest.fixture
def tree(tmp_path):
    """A project with an environment whose Python is a script that writes down what it is asked."""
    for name in ("pyproject.toml", "constraints.txt", "scripts/setup.py", "scripts/published_client.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/asked
case "$*" in
  *sys.version_info*) echo 3.11 ;;
  *importlib.metadata*) [ -e {tmp_path}/torch ] && cat {tmp_path}/torch ;;
  *"index versions torch"*) cat {tmp_path}/listing ;;
  *"install "*) [ -e {tmp_path}/refuse ] && echo "ERROR: no route to the index" && exit 1 ;;
esac
exit 0
"""
    )
    python.chmod(0o755)
    (tmp_path / "listing").write_text(PIP_KNOWS.format("2.13.0+cpu,"))
    return tmp_path


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(setup, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr("platform.system", lambda: "Linux")


def installs(tree):
    lines = (tree / "asked").read_text().splitlines()
    return [line.split("--progress-bar=off ")[1] for line in lines if " install " in line]


def test_torch_is_installed_alone_and_before_the_rest(tree):
    setup.set_up(tree, None, None)
    pins = f"--constraint {tree}/constraints.txt"
    assert installs(tree) == [
        f"{pins} hatchling editables",
        "--no-deps torch==2.13.0",
        f"{pins} --no-build-isolation --editable {tree}[dev]",
    ]


def test_a_second_set_up_starts_nothing(tree):
    setup.set_up(tree, None, None)
    (tree / "asked").unlink()
    setup.set_up(tree, None, None)
    assert not any("pip" in line for line in (tree / "asked").read_text().splitlines() if " -m " in line)


def test_a_torch_that_is_there_is_kept(tree):
    (tree / "torch").write_text("2.13.0+cpu\n")
    setup.set_up(tree, None, None)
    assert not any("torch==" in line for line in installs(tree))


def test_another_torch_index_replaces_torch_and_is_remembered(tree):
    setup.set_up(tree, None, None)
    (tree / "torch").write_text("2.13.0+cpu\n")
    setup.set_up(tree, "https://torch/cu126", None)
    assert installs(tree)[-2] == "--no-deps --force-reinstall torch==2.13.0"
    assert json.loads((tree / ".venv" / "setup.json").read_text())["torch_index"] == "https://torch/cu126"
    before = installs(tree)
    setup.set_up(tree, None, None)
    assert installs(tree) == before


def test_a_dependency_changes_the_environment_and_a_linters_rule_does_not(tree):
    before = inputs_digest(tree)
    project = tree / "pyproject.toml"
    project.write_text(project.read_text().replace("line-length = 120", "line-length = 100"))
    assert inputs_digest(tree) == before
    project.write_text(project.read_text().replace('"httpx>=', '"httpx>0,>='))
    assert inputs_digest(tree) != before


# --- when it goes wrong ---------------------------------------------------------------------------------------------


def test_a_pip_that_fails_shows_its_last_lines_and_the_way_out(tree, capsys):
    (tree / "refuse").touch()
    with pytest.raises(SystemExit) as stop:
        setup.set_up(tree, None, None)
    assert "no route to the index" in capsys.readouterr().out
    assert all(part in str(stop.value) for part in ("TORCH_INDEX=url", "PIP_INDEX_URL", "setup.log"))
    assert not (tree / ".venv" / "setup.json").exists()


def test_after_a_failure_it_goes_on_with_what_is_there(tree):
    (tree / "refuse").touch()
    with pytest.raises(SystemExit):
        setup.set_up(tree, None, None)
    (tree / "refuse").unlink()
    setup.set_up(tree, None, None)
    assert (tree / ".venv" / "setup.json").exists()


def test_an_environment_that_cannot_be_used_says_why(tree):
    environment = setup.Environment(tree)
    assert environment.unusable(None) is None
    assert "PYTHON= is 3.12" in environment.unusable("3.12")
    environment.finish(Stamp("digest", "/elsewhere", None))
    assert "made in /elsewhere" in environment.unusable(None)
    (tree / ".venv" / "unfinished").touch()
    assert "cut off" in environment.unusable(None)
    (tree / ".venv" / "unfinished").unlink()
    (tree / ".venv" / "setup.json").unlink()
    environment.python.unlink()
    assert "does not start" in environment.unusable(None)


# --- the published client -------------------------------------------------------------------------------------------


@pytest.fixture
def uv(tmp_path):
    """A uv that writes down what it is asked, and fails where `refuse` lies."""
    script = tmp_path / "uv"
    script.write_text(
        f"""#!/bin/sh
echo "$@" >> {tmp_path}/asked
[ "$2" = venv ] && mkdir -p "$5"
[ -e {tmp_path}/refuse ] && echo "error: no route to the index" >&2 && exit 2
exit 0
"""
    )
    script.chmod(0o755)
    return script


def test_the_published_client_is_installed_once_into_its_own_environment(tmp_path, uv):
    for _ in range(2):
        assert published_client.make(tmp_path, uv, Path("/py"), {}) is None
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"--quiet venv --python /py {tmp_path}/.venv-nemo",
        f"--quiet pip install --python {tmp_path}/.venv-nemo/bin/python nemo-platform==0.3.0",
        f"--quiet pip install --python {tmp_path}/.venv-nemo/bin/python --no-deps --editable {tmp_path}",
    ]


def test_the_older_client_is_installed_without_ours(tmp_path, uv):
    assert published_client.make(tmp_path, uv, Path("/py"), {}, published_client.MICROSERVICES) is None
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"--quiet venv --python /py {tmp_path}/.venv-nemo-microservices",
        f"--quiet pip install --python {tmp_path}/.venv-nemo-microservices/bin/python nemo-microservices==1.5.0",
    ]


def test_set_up_waits_for_the_clients_that_it_makes():
    assert {each.variable: each.folder for each in published_client.CLIENTS} == setup.PUBLISHED_CLIENTS


def test_without_a_network_the_published_client_is_missed_aloud_and_tried_again(tmp_path, uv):
    (tmp_path / "refuse").touch()
    for client in published_client.CLIENTS:
        assert "no route to the index" in published_client.make(tmp_path, uv, Path("/py"), {}, client)
    (tmp_path / "refuse").unlink()
    for client in published_client.CLIENTS:
        assert not setup.has_published_clients(tmp_path)
        assert published_client.make(tmp_path, uv, Path("/py"), {}, client) is None
    assert setup.has_published_clients(tmp_path)


def test_uv_is_told_what_pip_knows_but_not_against_its_own_settings():
    pip = ":env:.cert='/mine'\nglobal.index-url='https://mirror'\nglobal.proxy='http://p:1'\n"
    told = published_client.uv_environment({"UV_INDEX_URL": "https://own"}, pip)
    assert told == {"UV_INDEX_URL": "https://own", "SSL_CERT_FILE": "/mine", "ALL_PROXY": "http://p:1"}
