"""What the older calls mean, in the words of the backend that they go to."""

from __future__ import annotations

from typing import Any

import pytest

from tunesmith.errors import Invalid
from tunesmith.spec.base import leaf
from tunesmith.spec.doors import Translated, legacy, shorthand
from tunesmith.spec.grammars import GRAMMARS

LORA = {"type": "lora", "rank": 8, "alpha": 32}


def leaves_of(translated: Translated, *paths: str) -> list[Any]:
    """Values of the spec as its grammar reads it."""
    spec = GRAMMARS[translated.backend].model_validate(translated.spec)
    return [leaf(spec, path) for path in paths]


def short(**training: Any) -> Translated:
    return shorthand({"model": "default/base", "dataset": "fileset://default/rows", "training": training})


def test_the_published_example_of_the_shorthand() -> None:
    done = shorthand(
        {
            "model": "default/llama-3-2-1b",
            "dataset": "fileset://default/email-training-data",
            "training": {"type": "sft", "peft": LORA, "epochs": 3, "batch_size": 32},
            "deployment_config": {"lora_enabled": True},
        }
    )
    assert done.backend == "automodel"
    assert leaves_of(done, "model", "dataset.training", "training.training_type", "training.finetuning_type") == [
        "default/llama-3-2-1b",
        "fileset://default/email-training-data",
        "sft",
        "lora",
    ]
    assert leaves_of(done, "training.lora.rank", "training.lora.alpha", "schedule.epochs") == [8, 32, 3]
    assert leaves_of(done, "deployment_config.lora_enabled") == [True]


def test_what_the_shorthand_fills_in_stands_in_the_spec() -> None:
    done = short(type="sft", peft={"type": "lora"})
    assert done.spec["training"]["lora"] == {"rank": 8, "alpha": 32}
    assert (done.spec["optimizer"]["learning_rate"], done.spec["batch"]["global_batch_size"]) == (1e-4, 32)


def test_without_peft_all_weights_are_trained() -> None:
    assert leaves_of(short(type="sft"), "training.finetuning_type", "training.lora") == ["all_weights", None]


def test_every_field_of_the_shorthand_arrives_in_automodel() -> None:
    done = short(
        type="distillation",
        teacher_model="big",
        teacher_precision="fp32",
        distillation_ratio=0.7,
        distillation_temperature=2.0,
        peft={
            "rank": 4,
            "alpha": 8,
            "dropout": 0.1,
            "target_modules": ["q_proj"],
            "exclude_modules": ["k"],
            "merge": True,
        },
        learning_rate=1e-5,
        min_learning_rate=1e-6,
        weight_decay=0.1,
        adam_beta1=0.8,
        adam_beta2=0.9,
        adam_eps=1e-6,
        warmup_steps=5,
        optimizer="AdamW",
        lr_decay_style="linear",
        epochs=2,
        max_steps=50,
        log_every_n_steps=1,
        val_check_interval=0.5,
        batch_size=16,
        micro_batch_size=2,
        sequence_packing=True,
        sequence_packing_max_samples=10,
        max_seq_length=512,
        precision="bf16",
        attn_implementation="eager",
        seed=7,
        parallelism={"num_gpus_per_node": 4, "tensor_parallel_size": 2, "sequence_parallel": True},
        execution_profile="big",
    )
    assert leaves_of(
        done,
        "training.teacher_model",
        "training.teacher_precision",
        "training.distillation_ratio",
        "training.distillation_temperature",
    ) == ["big", "fp32", 0.7, 2.0]
    assert done.spec["training"]["lora"] == {
        "rank": 4,
        "alpha": 8,
        "dropout": 0.1,
        "target_modules": ["q_proj"],
        "exclude_modules": ["k"],
        "merge": True,
    }
    assert done.spec["optimizer"] == {
        "learning_rate": 1e-5,
        "min_learning_rate": 1e-6,
        "weight_decay": 0.1,
        "adam_beta1": 0.8,
        "adam_beta2": 0.9,
        "adam_eps": 1e-6,
        "warmup_steps": 5,
        "optimizer": "AdamW",
        "lr_decay_style": "linear",
    }
    assert done.spec["schedule"] == {"epochs": 2, "max_steps": 50, "val_check_interval": 0.5, "seed": 7}
    assert done.spec["parallelism"] == {
        "num_gpus_per_node": 4,
        "tensor_parallel_size": 2,
        "sequence_parallel": True,
    }
    assert done.fields["training.lora.rank"] == "spec.training.peft.rank"


@pytest.mark.parametrize(
    ("peft", "loads"),
    [
        ({"quantization": {}}, [True, False, False]),
        ({"quantization": {"precision": "8bit"}}, [False, True, False]),
        ({"use_dora": True}, [False, False, True]),
        ({"use_dora": True, "quantization": {"precision": "4bit"}}, [True, False, True]),
    ],
)
def test_quantised_weights_and_dora_go_to_unsloth(peft: dict[str, Any], loads: list[bool]) -> None:
    done = short(type="sft", peft=peft, batch_size=12, micro_batch_size=4, seed=3)
    assert done.backend == "unsloth"
    assert leaves_of(done, "model.load_in_4bit", "model.load_in_8bit", "training.lora.use_dora") == loads
    assert leaves_of(done, "training.lora.rank", "training.lora.alpha", "optimizer.learning_rate") == [8, 32, 1e-4]
    assert leaves_of(done, "batch.per_device_train_batch_size", "batch.gradient_accumulation_steps") == [4, 3]
    assert leaves_of(done, "schedule.seed", "training.lora.random_state") == [3, 3]
    assert leaves_of(done, "schedule.lr_scheduler_type", "optimizer.optim") == ["cosine", "adamw_torch"]
    assert leaves_of(done, "dataset.apply_chat_template", "optimizer.weight_decay") == [True, 0.01]


def test_a_merged_adapter_of_unsloth_has_a_save_method() -> None:
    assert leaves_of(short(type="sft", peft={"quantization": {}, "merge": True}), "output.save_method") == [
        "merged_16bit"
    ]


def test_preferences_go_to_rl() -> None:
    done = short(type="dpo", ref_policy_kl_penalty=0.1, optimizer="AdamW", lr_decay_style="constant")
    assert done.backend == "rl"
    assert leaves_of(done, "training.type", "training.ref_policy_kl_penalty", "training.optimizer_type") == [
        "dpo",
        0.1,
        "adamw_with_flat_lr",
    ]
    assert leaves_of(done, "training.batch_size", "training.learning_rate", "training.adam_eps") == [32, 1e-4, 1e-8]
    assert leaves_of(short(type="dpo", peft={}), "training.finetuning_type", "training.lora.rank") == ["lora", 8]


def test_output_and_custom_fields_of_the_shorthand() -> None:
    done = shorthand(
        {
            "model": "m",
            "dataset": "d",
            "training": {"type": "sft", "peft": {}},
            "output": {"name": "out"},
            "custom_fields": {"priority": 3},
            "integrations": {"wandb": {"project": "p"}},
        }
    )
    assert leaves_of(done, "output.name", "integrations.wandb.project") == ["out", "p"]
    assert done.custom_fields == {"priority": 3}


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({}, r"spec.training.type: is missing; it must be sft, distillation or dpo"),
        ({"type": "grpo"}, r"spec.training.type: 'grpo' is none of this call's"),
        ({"type": "sft", "colour": 1}, r"spec.training.colour: there is no such field"),
        ({"type": "sft", "peft": "lora"}, r"spec.training.peft: must be an object, not lora"),
        ({"type": "sft", "peft": {"type": "ia3"}}, r"spec.training.peft.type: ia3 must be lora"),
        ({"type": "sft", "peft": {"rank": 257}}, r"spec.training.peft.rank: 257 must be a whole number from 1 to 256"),
        ({"type": "sft", "log_every_n_steps": 10}, r"log_every_n_steps: 10 has no counterpart .* every step is logged"),
        (
            {"type": "sft", "max_grad_norm": 1.0},
            r"max_grad_norm: 1.0 has no counterpart in the automodel backend: it is",
        ),
        (
            {"type": "sft", "peft": {"quantization": {}, "exclude_modules": ["k"]}},
            r"peft.exclude_modules: .* has no counterpart in the unsloth backend: name what to adapt",
        ),
        (
            {"type": "sft", "peft": {"use_dora": True}, "parallelism": {"num_gpus_per_node": 2}},
            r"parallelism.num_gpus_per_node: 2 has no counterpart in the unsloth backend: it trains on one device",
        ),
        (
            {"type": "sft", "peft": {"use_dora": True}, "batch_size": 10, "micro_batch_size": 4},
            r"batch_size \(10\) must be divisible by micro_batch_size \(4\)",
        ),
        ({"type": "sft", "peft": {"use_dora": True}, "optimizer": "Adam"}, r"training.optimizer: Adam must be AdamW"),
        ({"type": "distillation", "peft": {"quantization": {}}}, r"spec.training.type: distillation must be sft"),
        ({"type": "dpo", "sequence_packing": True}, r"sequence_packing: true has no counterpart in the rl backend"),
        ({"type": "dpo", "lr_decay_style": "linear"}, r"lr_decay_style \(linear\) cosine or constant"),
        ({"type": "dpo", "lr_decay_style": ["cosine"]}, r"lr_decay_style \(\['cosine'\]\) cosine or constant"),
        ({"type": "dpo", "peft": {"use_dora": True}}, r"use_dora: true has no counterpart in the rl backend"),
    ],
)
def test_what_the_shorthand_cannot_say_is_refused_never_dropped(training: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        short(**training)


def test_null_and_what_happens_anyway_are_no_requests() -> None:
    done = short(type="sft", peft={"use_dora": False, "quantization": None}, max_steps=None, log_every_n_steps=1)
    assert done.backend == "automodel"
    assert "max_steps" not in done.spec.get("schedule", {})


CALL: dict[str, Any] = {
    "config": "meta/llama-3.1-8b-instruct",
    "dataset": {"name": "support-tone-v3"},
    "hyperparameters": {
        "training_type": "sft",
        "finetuning_type": "lora",
        "epochs": 3,
        "lora": {"adapter_dim": 16},
    },
}


def old(hyperparameters: dict[str, Any] | None = None, **body: Any) -> Translated:
    return legacy({**CALL, "hyperparameters": {**CALL["hyperparameters"], **(hyperparameters or {})}, **body})


def test_the_published_example_of_the_older_call() -> None:
    done = legacy(CALL)
    assert (done.backend, done.workspace) == ("automodel", None)
    assert leaves_of(done, "model", "dataset.training") == ["meta/llama-3.1-8b-instruct", "support-tone-v3"]
    assert done.model_otherwise == "default/llama-3.1-8b-instruct"
    assert leaves_of(done, "training.lora.rank", "training.lora.alpha", "schedule.epochs") == [16, 32, 3]
    assert leaves_of(done, "optimizer.learning_rate", "batch.global_batch_size") == [1e-4, 32]
    assert leaves_of(done, "optimizer.min_learning_rate") == [pytest.approx(1e-5)]


@pytest.mark.parametrize(
    ("config", "model", "otherwise"),
    [
        ("meta/x@v1", "meta/x", "default/x"),
        ("x", "x", None),
        ("default/x", "default/x", None),
        ({"name": "x", "namespace": "meta"}, "meta/x", "default/x"),
        ({"name": "cfg", "target": "meta/x@2"}, "meta/x", "default/x"),
    ],
)
def test_a_config_is_a_model_without_its_version(config: Any, model: str, otherwise: str | None) -> None:
    done = old(config=config)
    assert (done.spec["model"], done.model_otherwise) == (model, otherwise)


def test_what_an_inline_config_says_about_training_counts() -> None:
    option = {"training_type": "sft", "finetuning_type": "lora", "num_gpus": 4, "tensor_parallel_size": 2}
    options = [{**option, "finetuning_type": "all_weights"}, {**option, "micro_batch_size": 2, "data_parallel_size": 2}]
    config = {
        "target": "meta/x",
        "max_seq_length": 512,
        "training_precision": "bf16-mixed",
        "prompt_template": "{input} {output}",
        "training_options": options,
    }
    done = old(config=config)
    assert leaves_of(done, "parallelism.num_gpus_per_node", "parallelism.tensor_parallel_size") == [4, 2]
    assert leaves_of(done, "batch.micro_batch_size", "training.max_seq_length", "training.precision") == [
        2,
        512,
        "bf16",
    ]
    assert leaves_of(done, "dataset.prompt_template", "dataset.training") == ["{input} {output}", "support-tone-v3"]


@pytest.mark.parametrize(
    ("dataset", "fileset"),
    [
        ("ns/rows", "ns/rows"),
        ({"name": "rows", "namespace": "ns"}, "ns/rows"),
        ({"files_url": "hf://datasets/ns/rows"}, "ns/rows"),
        ({"name": "rows", "namespace": "ns", "files_url": "hf://datasets/ns/rows"}, "ns/rows"),
    ],
)
def test_a_dataset_is_a_fileset(dataset: Any, fileset: str) -> None:
    assert old(dataset=dataset).spec["dataset"]["training"] == fileset


def test_hyperparameters_of_the_older_call_arrive_in_automodel() -> None:
    done = old(
        {
            "batch_size": 16,
            "max_steps": 100,
            "learning_rate": 1e-5,
            "optimizer": "adamw_with_flat_lr",
            "adam_beta1": 0.8,
            "adam_beta2": 0.9,
            "warmup_steps": 5,
            "weight_decay": 0.1,
            "seed": 7,
            "val_check_interval": 0.5,
            "sequence_packing_enabled": True,
            "lora": {"adapter_dim": 4, "alpha": 8, "adapter_dropout": 0.1, "target_modules": ["q_proj"]},
            "sft": {"hidden_dropout": 0},
        },
        integrations=[{"type": "wandb", "wandb": {"project": "p", "tags": ["t"]}}],
        output_model="default/tone@v2",
    )
    assert done.spec["optimizer"] == {
        "learning_rate": 1e-5,
        "optimizer": "AdamW",
        "lr_decay_style": "constant",
        "adam_beta1": 0.8,
        "adam_beta2": 0.9,
        "warmup_steps": 5,
        "weight_decay": 0.1,
    }
    assert done.spec["training"]["lora"] == {"rank": 4, "alpha": 8, "dropout": 0.1, "target_modules": ["q_proj"]}
    assert done.spec["schedule"] == {"epochs": 3, "max_steps": 100, "seed": 7, "val_check_interval": 0.5}
    assert done.spec["batch"] == {"global_batch_size": 16, "sequence_packing": True}
    assert leaves_of(done, "integrations.wandb.project", "output.name") == ["p", "tone"]


def test_a_validation_interval_above_the_steps_is_one_step_less() -> None:
    assert old({"max_steps": 5, "val_check_interval": 100}).spec["schedule"]["val_check_interval"] == 4


def test_a_teacher_is_named_without_its_version() -> None:
    done = old({"training_type": "distillation", "distillation": {"teacher": "meta/big@1"}})
    assert leaves_of(done, "training.training_type", "training.teacher_model") == ["distillation", "meta/big"]


def test_dpo_of_the_older_call_keeps_the_defaults_that_its_client_documents() -> None:
    done = old({"training_type": "dpo", "finetuning_type": "all_weights", "lora": None, "dpo": {"max_grad_norm": 2.0}})
    assert done.backend == "rl"
    assert leaves_of(done, "training.type", "training.batch_size", "training.learning_rate") == ["dpo", 16, 9e-6]
    assert leaves_of(done, "training.max_grad_norm", "dataset") == [2.0, "support-tone-v3"]


def test_grpo_of_the_older_call() -> None:
    done = old({"training_type": "grpo", "grpo": {"environment": {"name": "mcqa"}, "num_generations_per_prompt": 4}})
    assert leaves_of(done, "training.type", "training.environment.name", "training.lora.rank") == ["grpo", "mcqa", 16]
    assert leaves_of(done, "training.num_generations_per_prompt") == [4]


def test_what_stands_beside_the_spec_is_kept() -> None:
    done = old(namespace="team", name="n", description="d", project="p", custom_fields={"a": "b"}, ownership={"x": 1})
    assert (done.workspace, done.name, done.description, done.project) == ("team", "n", "d", "p")
    assert (done.custom_fields, done.ownership) == ({"a": "b"}, {"x": 1})


@pytest.mark.parametrize(
    ("hyperparameters", "body", "message"),
    [
        ({"training_type": "ppo"}, {}, r"hyperparameters.training_type: 'ppo' must be sft, distillation, dpo, grpo"),
        ({"finetuning_type": None}, {}, r"hyperparameters.finetuning_type: is missing"),
        ({"log_every_n_steps": 10}, {}, r"hyperparameters.log_every_n_steps: 10 has no counterpart"),
        ({"sft": {"attention_dropout": 0.1}}, {}, r"sft.attention_dropout: 0.1 .* lora.adapter_dropout"),
        ({"optimizer": "sgd"}, {}, r"hyperparameters.optimizer: sgd must be adam_with_cosine_annealing or"),
        ({"colour": 1}, {}, r"hyperparameters.colour: there is no such field"),
        ({"lora": 16}, {}, r"hyperparameters.lora: must be an object, not 16"),
        ({"dpo": {"max_grad_norm": 1}}, {}, r"dpo.max_grad_norm: 1 .* it is for training_type dpo"),
        ({"training_type": "grpo", "batch_size": 4}, {}, r"batch_size: 4 has no counterpart in the rl backend: a step"),
        ({}, {"dataset_parameters": {"tools": []}}, r"dataset_parameters: these are for embedding models"),
        ({}, {"dataset": None}, r"dataset: is missing"),
        (
            {},
            {"dataset": {"name": "a", "files_url": "hf://datasets/n/b"}},
            r"is not the fileset that name and namespace",
        ),
        ({}, {"dataset": {"files_url": "s3://x"}}, r"dataset.files_url: 's3://x' must be hf://datasets/namespace/name"),
        ({}, {"config": None}, r"config: None must be the name of a model"),
        ({}, {"config": {"name": "x", "pod_spec": {"a": 1}}}, r"config.pod_spec: there is no such field"),
        (
            {},
            {"config": {"name": "x", "training_options": [{"finetuning_type": "lora_merged"}]}},
            r"none is for training",
        ),
        ({}, {"output_model": "elsewhere/tone"}, r"output_model: 'elsewhere/tone' must be in the job's namespace"),
        ({}, {"integrations": [{"type": "wandb", "wandb": "tone"}]}, r"integrations: .* must be \{type: wandb"),
        ({}, {"integrations": [{"type": "mlflow"}]}, r"integrations: .* must be \{type: wandb"),
        ({}, {"colour": 1}, r"colour: there is no such field"),
    ],
)
def test_what_the_older_call_cannot_say_is_refused_never_dropped(
    hyperparameters: dict[str, Any], body: dict[str, Any], message: str
) -> None:
    with pytest.raises(Invalid, match=message):
        old(hyperparameters, **body)


def test_a_message_about_the_spec_is_said_in_the_words_of_the_door() -> None:
    done = old(integrations=[{"type": "wandb", "wandb": {"project": "p"}}])
    for said, told in (
        ("spec.model: gone", "config: gone"),
        ("training.lora.rank: 9 of model.gguf", "hyperparameters.lora.adapter_dim: 9 of model.gguf"),
        ("spec.integrations.wandb.project: p", "integrations.wandb.project: p"),
        ("batch.global_batch_size (8) is too much", "hyperparameters.batch_size (8) is too much"),
        ("the dataset is a dataset", "the dataset is a dataset"),
        ("spec.colour.red: no", "spec.colour.red: no"),
    ):
        assert done.reworded(said) == told


def test_a_field_is_found_again_where_it_was_sent() -> None:
    done = short(type="dpo", peft={"target_modules": ["q"]})
    assert done.field_of(("training", "dpo", "lora", "target_modules", 0)) == (
        *("spec", "training", "peft", "target_modules"),
        0,
    )
    assert done.field_of(("training", "parallelism")) == ("spec", "training", "parallelism")
    assert done.field_of(("colour",)) == ("spec", "colour")
