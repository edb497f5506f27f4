"""Mixtures of experts, latent attention and hybrids: decoders whose layers are not all alike.

Routed experts are counted but take no adapter: transformers stacks them in one tensor, which is no linear module.
"""

from __future__ import annotations

from tunesmith.errors import Invalid
from tunesmith.planning.config import EXPERT_FFN, Config, shown
from tunesmith.planning.decoders import Style, attention, dense, ends, grouped, norm
from tunesmith.planning.layout import Layout, Part, linear, weight

Parts = tuple[Part, ...]

_RMS = Style()


def experts(config: Config, width: int, name: str = "mlp", *, matrices: int = 3) -> Parts:
    """A router and its experts, each of `matrices` matrices of hidden_size x width."""
    return (
        weight(f"{name}.gate", config.experts, config.hidden),
        weight(f"{name}.experts", matrices * width, config.hidden, times=config.experts),
    )


def mixtral(config: Config, style: Style, number: int) -> tuple[Parts, bool]:  # noqa: ARG001
    """Experts in every layer (Mixtral, PhiMoE, OLMoE, Granite)."""
    return experts(config, config.ffn), True


def qwen_moe(config: Config, style: Style, number: int) -> tuple[Parts, bool]:
    """Experts but in the layers that the configuration excepts, with a gated expert for all tokens where it has one."""
    step = config.whole("decoder_sparse_step", default=1)
    if number in config.wholes("mlp_only_layers") or not config.experts or (number + 1) % step:
        return dense(config, style), False
    parts = experts(config, config.whole(*EXPERT_FFN))
    if shared := config.maybe("shared_expert_intermediate_size"):
        parts += dense(config, style, width=shared, name="mlp.shared_expert")
        parts += (weight("mlp.shared_expert_gate", 1, config.hidden),)
    return parts, True


def deepseek_moe(config: Config, style: Style, number: int) -> tuple[Parts, bool]:
    """Dense layers first, then experts with some for all tokens (Dai et al., 2024)."""
    if number < config.whole("first_k_dense_replace", default=0, least=0) or not config.maybe("n_routed_experts"):
        return dense(config, style), False
    width = config.whole(*EXPERT_FFN)
    parts = experts(config, width)
    if shared := config.maybe("n_shared_experts"):
        parts += dense(config, style, width=width * shared, name="mlp.shared_experts")
    return parts, True


def deepseek(config: Config, style: Style) -> Layout:
    """Multi-head latent attention (DeepSeek-V2): queries, keys and values through a narrow layer."""
    hidden, heads, bias = config.hidden, config.heads, config.flag("attention_bias")
    rope, plain, value = (config.whole(key) for key in ("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"))
    latent, narrow = config.whole("kv_lora_rank"), config.maybe("q_lora_rank")
    queries: Parts = (
        (
            linear("self_attn.q_a_proj", hidden, narrow, bias),
            weight("self_attn.q_a_layernorm", narrow),
            linear("self_attn.q_b_proj", narrow, heads * (plain + rope)),
        )
        if narrow
        else (linear("self_attn.q_proj", hidden, heads * (plain + rope)),)
    )
    shared = (
        *queries,
        linear("self_attn.kv_a_proj_with_mqa", hidden, latent + rope, bias),
        weight("self_attn.kv_a_layernorm", latent),
        linear("self_attn.kv_b_proj", latent, heads * (plain + value)),
        linear("self_attn.o_proj", heads * value, hidden, bias),
        *(norm(name, hidden, style) for name in style.norms),
    )

    def layer(number: int) -> tuple[Parts, bool]:
        parts, sparse = deepseek_moe(config, style, number)
        return shared + parts, sparse

    return Layout(grouped(range(config.layers), layer), (*ends(config), norm("model.norm", hidden, style)))


def gpt_oss(config: Config, style: Style, number: int) -> tuple[Parts, bool]:  # noqa: ARG001
    """Experts with biases, and a router with one."""
    count, hidden, ffn = config.experts, config.hidden, config.ffn
    return (
        weight("mlp.router", count, hidden, bias=count),
        weight("mlp.experts.gate_up_proj", hidden, 2 * ffn, bias=2 * ffn, times=count),
        weight("mlp.experts.down_proj", ffn, hidden, bias=hidden, times=count),
    ), True


def qwen3_next(config: Config) -> Layout:
    """Three layers of a gated delta net (Yang et al., 2024), then one of gated attention; experts in all."""
    hidden, style = config.hidden, Style(qk_norm="head")
    keys = config.whole("linear_num_key_heads") * config.whole("linear_key_head_dim")
    value_heads, value_size = config.whole("linear_num_value_heads"), config.whole("linear_value_head_dim")
    values = value_heads * value_size
    delta = (
        weight("linear_attn.conv1d", 2 * keys + values, 1, config.whole("linear_conv_kernel_dim")),
        linear("linear_attn.in_proj_qkvz", hidden, 2 * keys + 2 * values),
        linear("linear_attn.in_proj_ba", hidden, 2 * value_heads),
        weight("linear_attn.dt_bias", value_heads),
        weight("linear_attn.A_log", value_heads),
        weight("linear_attn.norm", value_size),
        linear("linear_attn.out_proj", values, hidden),
    )
    queries, *others = attention(config, style)
    gated = Part(queries.name, (2 * queries.shape[0], hidden), 2 * queries.bias, adaptable=True)
    kinds, every = config.texts("layer_types"), config.whole("full_attention_interval", default=4)
    norms = tuple(norm(name, hidden, style) for name in style.norms)

    def layer(number: int) -> tuple[Parts, bool]:
        full = kinds[number] == "full_attention" if number < len(kinds) else (number + 1) % every == 0
        parts, sparse = qwen_moe(config, style, number)
        return ((gated, *others) if full else delta) + norms + parts, sparse

    return Layout(grouped(range(config.layers), layer), (*ends(config), norm("model.norm", hidden, style)))


HYBRID_LETTERS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_HYBRID_WORDS = {"linear_attention": "mamba", "full_attention": "attention"}


def hybrid_layers(config: Config) -> tuple[str, ...]:
    """What each layer of a hybrid is: `mamba`, `attention`, `mlp` or `moe`; () where the configuration does not say."""
    pattern = config.text("hybrid_override_pattern")
    if pattern:
        wrong = set(pattern) - HYBRID_LETTERS.keys()
        if wrong or len(pattern) > 10_000:
            raise Invalid(f"config.json: 'hybrid_override_pattern' must be of the letters {' '.join(HYBRID_LETTERS)}")
        return tuple(HYBRID_LETTERS[letter] for letter in pattern)
    words = config.texts("layers_block_type") or config.texts("layer_types")
    return tuple(_HYBRID_WORDS.get(word, word) for word in words)


def nemotron_h(config: Config) -> Layout:
    """Mamba-2 (Dao and Gu, 2024), attention, dense and sparse layers, one norm and one mixer each."""
    mixers = {
        "mamba": _mamba2(config),
        "attention": _renamed(attention(config, Style(qkv_bias=False, out_bias=False))),
        "mlp": _up_down(config, config.ffn, "mixer"),
    }
    kinds = hybrid_layers(config)
    if not kinds:
        raise Invalid("config.json: 'hybrid_override_pattern' is missing")
    if "moe" in kinds:
        mixers["moe"] = _nemotron_experts(config)
    unknown = sorted(set(kinds) - mixers.keys())
    if unknown:
        raise Invalid(f"config.json: 'layers_block_type' names {shown(unknown[0])}; known are {', '.join(mixers)}")

    def layer(number: int) -> tuple[Parts, bool]:
        return (norm("norm", config.hidden, _RMS), *mixers[kinds[number]]), kinds[number] == "moe"

    return Layout(
        grouped(range(len(kinds)), layer, "backbone.layers.{}."),
        (*ends(config, "backbone.embeddings"), norm("backbone.norm_f", config.hidden, _RMS)),
    )


def _mamba2(config: Config) -> Parts:
    heads, groups = config.whole("mamba_num_heads"), config.whole("n_groups", "mamba_n_groups")
    inner = heads * config.whole("mamba_head_dim")
    wide = inner + 2 * groups * config.whole("ssm_state_size")
    bias = config.flag("use_bias")
    return (
        weight(
            "mixer.conv1d",
            wide,
            1,
            config.whole("conv_kernel", "mamba_d_conv"),
            bias=wide if config.flag("use_conv_bias", default=True) else 0,
        ),
        linear("mixer.in_proj", config.hidden, inner + wide + heads, bias),
        weight("mixer.dt_bias", heads),
        weight("mixer.A_log", heads),
        weight("mixer.D", heads),
        weight("mixer.norm", inner),
        # Linear, but PEFT takes no adapter on it, since fused kernels read its weight directly.
        weight("mixer.out_proj", config.hidden, inner, bias=config.hidden if bias else 0),
    )


def _nemotron_experts(config: Config) -> Parts:
    hidden, width, bias = config.hidden, config.whole(*EXPERT_FFN), config.flag("mlp_bias")
    latent = config.maybe("moe_latent_size")
    through: Parts = (
        (linear("mixer.fc1_latent_proj", hidden, latent, bias), linear("mixer.fc2_latent_proj", latent, hidden, bias))
        if latent
        else ()
    )
    return (
        weight("mixer.gate", config.experts, hidden),
        weight("mixer.experts", 2 * width, latent or hidden, times=config.experts),
        *_up_down(config, config.whole("moe_shared_expert_intermediate_size"), "mixer.shared_experts"),
        *through,
    )


def _up_down(config: Config, width: int, name: str) -> Parts:
    return dense(config, Style(gated=False, mlp_bias="mlp_bias"), width=width, name=name)


def _renamed(parts: Parts) -> Parts:
    return tuple(
        Part(part.name.replace("self_attn.", "mixer."), part.shape, part.bias, part.adaptable) for part in parts
    )
