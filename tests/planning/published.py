"""Configurations as published (huggingface.co/<repository>/blob/main/config.json), and how many parameters they have.

The count is the one that the repository's page shows from its safetensors headers, or that transformers gives for the
class built from the configuration; a head that is the embedding counts once.
"""

from __future__ import annotations

from typing import Any


def sizes(
    family: str, cls: str, layers: int, hidden: int, ffn: int, heads: int, kv_heads: int, vocab: int, **more: Any
) -> dict[str, Any]:
    """The keys that most configurations have."""
    return {
        "architectures": [cls],
        "model_type": family,
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": ffn,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        **more,
    }


TIED = {"tie_word_embeddings": True}
GEMMA, GEMMA2 = ("gemma", "GemmaForCausalLM"), ("gemma2", "Gemma2ForCausalLM")
LLAMA, MISTRAL = ("llama", "LlamaForCausalLM"), ("mistral", "MistralForCausalLM")
DEEPSEEK = {
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
}

PUBLISHED: list[tuple[str, dict[str, Any], int]] = [
    ("meta-llama/Llama-3.2-1B", sizes(*LLAMA, 16, 2048, 8192, 32, 8, 128256, **TIED), 1_235_814_400),
    ("meta-llama/Llama-3.2-3B", sizes(*LLAMA, 28, 3072, 8192, 24, 8, 128256, head_dim=128, **TIED), 3_212_749_824),
    ("meta-llama/Llama-3.1-8B", sizes(*LLAMA, 32, 4096, 14336, 32, 8, 128256), 8_030_261_248),
    ("meta-llama/Llama-3.1-70B", sizes(*LLAMA, 80, 8192, 28672, 64, 8, 128256), 70_553_706_496),
    ("HuggingFaceTB/SmolLM2-135M", sizes(*LLAMA, 30, 576, 1536, 9, 3, 49152, **TIED), 134_515_008),
    ("mistralai/Mistral-7B-v0.1", sizes(*MISTRAL, 32, 4096, 14336, 32, 8, 32000), 7_241_732_096),
    (
        "mistralai/Mixtral-8x7B-v0.1",
        sizes("mixtral", "MixtralForCausalLM", 32, 4096, 14336, 32, 8, 32000, num_local_experts=8),
        46_702_792_704,
    ),
    ("Qwen/Qwen2.5-0.5B", sizes("qwen2", "Qwen2ForCausalLM", 24, 896, 4864, 14, 2, 151936, **TIED), 494_032_768),
    ("Qwen/Qwen2.5-7B", sizes("qwen2", "Qwen2ForCausalLM", 28, 3584, 18944, 28, 4, 152064), 7_615_616_512),
    (
        "Qwen/Qwen3-0.6B",
        sizes("qwen3", "Qwen3ForCausalLM", 28, 1024, 3072, 16, 8, 151936, head_dim=128, **TIED),
        596_049_920,
    ),
    (
        "Qwen/Qwen3-30B-A3B",
        sizes(
            "qwen3_moe", "Qwen3MoeForCausalLM", 48, 2048, 6144, 32, 4, 151936,
            head_dim=128, num_experts=128, num_experts_per_tok=8, moe_intermediate_size=768,
        ),
        30_532_122_624,
    ),
    ("microsoft/phi-2", sizes("phi", "PhiForCausalLM", 32, 2560, 10240, 32, 32, 51200), 2_779_683_840),
    (
        "microsoft/Phi-3-mini-4k-instruct",
        sizes("phi3", "Phi3ForCausalLM", 32, 3072, 8192, 32, 32, 32064),
        3_821_079_552,
    ),
    ("google/gemma-7b", sizes(*GEMMA, 28, 3072, 24576, 16, 16, 256000, head_dim=256), 8_537_680_896),
    ("google/gemma-2-2b", sizes(*GEMMA2, 26, 2304, 9216, 8, 4, 256000, head_dim=256), 2_614_341_888),
    (
        "openai/gpt-oss-20b",
        sizes(
            "gpt_oss", "GptOssForCausalLM", 24, 2880, 2880, 64, 8, 201088,
            head_dim=64, num_local_experts=32, num_experts_per_tok=4,
        ),
        20_914_757_184,
    ),
    (
        "openai-community/gpt2",
        {
            "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2",
            "n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 1024, "vocab_size": 50257,
        },
        124_439_808,
    ),
    (
        "deepseek-ai/DeepSeek-V3",
        sizes("deepseek_v3", "DeepseekV3ForCausalLM", 61, 7168, 18432, 128, 128, 129280, **DEEPSEEK),
        671_026_404_352,
    ),
]  # fmt: skip
