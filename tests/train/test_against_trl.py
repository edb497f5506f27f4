"""Whole runs against TRL's SFTTrainer: the same start, rows, order and hyperparameters give its curve and its weights.

The two share transformers' model classes and torch's AdamW and nothing else: TRL pads, masks, accumulates means over
micro-batches, clips and logs in its own ways. eps is 1e-5, because at 1e-8 even one process drifts from itself.
"""

from __future__ import annotations

import peft
import pytest
import torch
from safetensors.torch import load_file

from tests.models import tiny_llama, tiny_tokenizer
from tests.threads import one_thread
from tests.train.conftest import drawn_pairs
from tests.train.runs import CPU, train
from tunesmith.data.schedule import rows_of_step
from tunesmith.data.store import Rows
from tunesmith.handoff.plan import FirstOf, Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.model.load import load_model
from tunesmith.train.student import student_of

STEPS, ROWS_PER_STEP = 50, 4
WINDOW = 8
KINDS = {"lora": (0.01, 1.0), "full": (0.003, 2.5)}
"""What is trained -> learning rate, and a gradient norm that some steps exceed and others do not."""


def tiny_gemma(directory):
    """A random Gemma 3, one layer of which sees `WINDOW` tokens."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    tiny_tokenizer(directory)
    config = Gemma3TextConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"],
        sliding_window=WINDOW,
        max_position_embeddings=256,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        Gemma3ForCausalLM(config).save_pretrained(directory)


BASES = {
    "tied": tiny_llama,
    "untied": lambda directory: tiny_llama(directory, tie_word_embeddings=False),
    "window": tiny_gemma,
}


@pytest.fixture(scope="module", params=BASES)
def base(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    BASES[request.param](directory)
    return directory


@pytest.fixture(autouse=True)
def alone():
    """TRL's many small products otherwise spin on each other's threads for ten times as long."""
    with one_thread():
        yield


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def run(make_run, base, kind):
    """A prepared run of 20 rows of 9 to 40 tokens: five steps an epoch, all of them full."""
    rate, max_norm = KINDS[kind]
    return make_run(
        base=base,
        pairs=drawn_pairs(20, 4, 14),
        adapter=None if kind == "full" else {},
        optimizer={
            "name": "adamw",
            "learning_rate": rate,
            "weight_decay": 0.1,
            "max_grad_norm": max_norm,
            "warmup_steps": 0,
            "decay": "constant",
        },
        schedule={"stop": FirstOf(epochs=100, steps=STEPS), "rows_per_step": ROWS_PER_STEP},
    )


def rows_in_order(run):
    """Each step's rows one after another, as TRL takes tokenised rows."""
    schedule = Plan.read(run / "plan.json").schedule
    rows, found = Rows(run, Prepared.read(run / "data.json").training), []
    for step in range(1, STEPS + 1):
        for row in rows_of_step(step, len(rows), schedule.rows_per_step, schedule.seed):
            ids, mask = rows.ids(row).tolist(), rows.mask(row).tolist()
            labels = [token if trained else -100 for token, trained in zip(ids, mask, strict=True)]
            found.append({"input_ids": ids, "labels": labels})
    return found


def train_with_trl(run, model, output):
    """TRL trains what is trainable in `model` on the run's rows; the losses and gradient norms of its steps."""
    import datasets
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    part = Plan.read(run / "plan.json").optimizer
    config = SFTConfig(
        output_dir=str(output),
        max_length=None,
        num_train_epochs=1,
        per_device_train_batch_size=ROWS_PER_STEP // 2,
        gradient_accumulation_steps=2,
        train_sampling_strategy="sequential",
        learning_rate=part.learning_rate,
        weight_decay=part.weight_decay,
        adam_beta1=part.beta1,
        adam_beta2=part.beta2,
        adam_epsilon=part.eps,
        lr_scheduler_type="constant",
        max_grad_norm=part.max_grad_norm,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    with torch.random.fork_rng():  # it seeds torch's generator
        trainer = SFTTrainer(
            model=model,
            args=config,
            train_dataset=datasets.Dataset.from_list(rows_in_order(run)),
            processing_class=AutoTokenizer.from_pretrained(run / "inputs/model"),
        )
        trainer.train()
    return [(entry["loss"], entry["grad_norm"]) for entry in trainer.state.log_history if "loss" in entry]


def model_to_start_from(run, kind, start):
    """What our run starts from, as TRL takes it; an adapter goes through PEFT's files."""
    if kind == "full":
        return load_model(run / "inputs/model", "fp32", "sdpa", CPU).requires_grad_(True)
    start.mkdir()
    student_of(load_model(run / "inputs/model", "fp32", "sdpa", CPU), Plan.read(run / "plan.json")).write_adapter(start)
    base = load_model(run / "inputs/model", "fp32", "sdpa", CPU)
    return peft.PeftModel.from_pretrained(base, start, is_trainable=True)


def weights_of(model, kind):
    """By the names of our files."""
    if kind == "full":
        return model.state_dict()
    return peft.get_peft_model_state_dict(model, save_embedding_layers=False)


def test_a_run_equals_trls(run, kind, tmp_path):
    lengths = Rows(run, Prepared.read(run / "data.json").training).lengths
    assert WINDOW < min(lengths) < max(lengths) / 2, "rows look past the window, and TRL pads"
    ours = [(event.loss, event.grad_norm) for event in train(run) if event.kind == "progress"]
    model = model_to_start_from(run, kind, tmp_path / "start")
    theirs = train_with_trl(run, model, tmp_path / "trl")
    assert len(ours) == STEPS
    assert ours[-1][0] < 0.7 * ours[0][0], "the curve must have something to disagree about"
    norms = [norm for _, norm in ours]
    assert min(norms) < KINDS[kind][1] < max(norms), "some steps are clipped, some are not"
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-4, atol=1e-4)
    (file,) = (run / "artifact").glob("*.safetensors")
    trained, wanted = load_file(file), weights_of(model, kind)
    assert len(trained) == len({tensor.data_ptr() for tensor in wanted.values()}), "each weight once"
    for name, tensor in trained.items():
        apart = torch.linalg.vector_norm(tensor - wanted[name]) / torch.linalg.vector_norm(wanted[name])
        assert apart < 1e-3, f"{name} is {apart:g} of its length away"
