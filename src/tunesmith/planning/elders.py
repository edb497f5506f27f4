"""Decoders before Llama and the encoders: each its own names, all with layer norms and plain feed-forward networks."""

from __future__ import annotations

from tunesmith.planning.config import CONTEXT, Config
from tunesmith.planning.decoders import ends
from tunesmith.planning.layout import Group, Layout, Part, linear, weight


def _norm(name: str, size: int) -> Part:
    return weight(name, size, bias=size)


def gpt2(config: Config) -> Layout:
    """GPT-2. Its Conv1D modules are linear with the weight transposed."""
    hidden, ffn = config.hidden, config.whole("n_inner", default=4 * config.hidden)
    parts = (
        _norm("ln_1", hidden),
        linear("attn.c_attn", hidden, 3 * hidden, bias=True),
        linear("attn.c_proj", hidden, hidden, bias=True),
        _norm("ln_2", hidden),
        linear("mlp.c_fc", hidden, ffn, bias=True),
        linear("mlp.c_proj", ffn, hidden, bias=True),
    )
    positions = weight("transformer.wpe", config.whole(*CONTEXT), hidden)
    return Layout(
        (Group("transformer.h.{}.", range(config.layers), parts),),
        (*ends(config, "transformer.wte"), positions, _norm("transformer.ln_f", hidden)),
    )


def opt(config: Config) -> Layout:
    """OPT; positions start at 2. The 350M one embeds in fewer dimensions than it thinks in, and has no last norm."""
    hidden, ffn, bias = config.hidden, config.ffn, config.flag("enable_bias", default=True)
    width = config.whole("word_embed_proj_dim", default=hidden)
    learned = config.flag("layer_norm_elementwise_affine", default=True)
    size = hidden if learned else 0
    parts = (
        *(linear(f"self_attn.{name}", hidden, hidden, bias) for name in ("q_proj", "k_proj", "v_proj", "out_proj")),
        _norm("self_attn_layer_norm", size),
        linear("fc1", hidden, ffn, bias),
        linear("fc2", ffn, hidden, bias),
        _norm("final_layer_norm", size),
    )
    rest = [
        *ends(config, "model.decoder.embed_tokens", width),
        weight("model.decoder.embed_positions", config.whole(*CONTEXT) + 2, hidden),
    ]
    if width != hidden:
        rest += [
            linear("model.decoder.project_in", width, hidden),
            linear("model.decoder.project_out", hidden, width),
        ]
    before = config.flag("do_layer_norm_before", default=True)
    if before and not config.flag("_remove_final_layer_norm"):
        rest.append(_norm("model.decoder.final_layer_norm", size))
    return Layout((Group("model.decoder.layers.{}.", range(config.layers), parts),), tuple(rest))


def gpt_neox(config: Config) -> Layout:
    """GPT-NeoX and Pythia."""
    hidden, ffn, bias = config.hidden, config.ffn, config.flag("attention_bias", default=True)
    parts = (
        linear("attention.query_key_value", hidden, 3 * hidden, bias),
        linear("attention.dense", hidden, hidden, bias),
        linear("mlp.dense_h_to_4h", hidden, ffn, bias=True),
        linear("mlp.dense_4h_to_h", ffn, hidden, bias=True),
        _norm("input_layernorm", hidden),
        _norm("post_attention_layernorm", hidden),
    )
    return Layout(
        (Group("gpt_neox.layers.{}.", range(config.layers), parts),),
        (*ends(config, "gpt_neox.embed_in"), _norm("gpt_neox.final_layer_norm", hidden)),
    )


def falcon_kv_heads(config: Config) -> int:
    """Heads of keys and values: grouped in the new architecture, one in the old one's multi-query attention."""
    if config.flag("new_decoder_architecture"):
        return config.kv_heads
    return 1 if config.flag("multi_query", default=True) else config.heads


def falcon(config: Config) -> Layout:
    """Falcon 7B, 40B and 180B: attention and feed-forward side by side, with one norm before both or one for each."""
    hidden, bias = config.hidden, config.flag("bias")
    ffn = config.whole("ffn_hidden_size", default=4 * hidden)
    size = hidden // config.heads
    if not config.flag("parallel_attn", default=True):
        norms = ["input_layernorm", "post_attention_layernorm"]
    elif config.whole("num_ln_in_parallel_attn", default=2 if config.flag("new_decoder_architecture") else 1) == 2:
        norms = ["ln_attn", "ln_mlp"]
    else:
        norms = ["input_layernorm"]
    parts = (
        linear("self_attention.query_key_value", hidden, hidden + 2 * falcon_kv_heads(config) * size, bias),
        linear("self_attention.dense", hidden, hidden, bias),
        linear("mlp.dense_h_to_4h", hidden, ffn, bias),
        linear("mlp.dense_4h_to_h", ffn, hidden, bias),
        *(_norm(name, hidden) for name in norms),
    )
    return Layout(
        (Group("transformer.h.{}.", range(config.layers), parts),),
        (*ends(config, "transformer.word_embeddings"), _norm("transformer.ln_f", hidden)),
    )


def bert(config: Config) -> Layout:
    """BERT, MiniLM, RoBERTa and XLM-RoBERTa, with the head that their class says."""
    hidden, ffn = config.hidden, config.ffn
    roberta = "roberta" in config.family
    parts = (
        *(linear(f"attention.self.{name}", hidden, hidden, bias=True) for name in ("query", "key", "value")),
        linear("attention.output.dense", hidden, hidden, bias=True),
        _norm("attention.output.LayerNorm", hidden),
        linear("intermediate.dense", hidden, ffn, bias=True),
        linear("output.dense", ffn, hidden, bias=True),
        _norm("output.LayerNorm", hidden),
    )
    root = "roberta" if roberta else "bert"
    rest: tuple[Part, ...] = (
        weight("embeddings.word_embeddings", config.vocab, hidden),
        weight("embeddings.position_embeddings", config.whole(*CONTEXT), hidden),
        weight("embeddings.token_type_embeddings", config.whole("type_vocab_size"), hidden),
        _norm("embeddings.LayerNorm", hidden),
    )
    return Layout(
        (Group(root + ".encoder.layer.{}.", range(config.layers), parts),), rest + _bert_head(config, roberta)
    )


def _bert_head(config: Config, roberta: bool) -> tuple[Part, ...]:
    hidden, labels, kind = config.hidden, config.labels, config.architecture
    pooler = linear("pooler.dense", hidden, hidden, bias=True)
    if kind.endswith("ForMaskedLM"):
        dense = linear("lm_head.dense" if roberta else "cls.predictions.transform.dense", hidden, hidden, bias=True)
        untied = () if config.tied else (weight("decoder", config.vocab, hidden),)
        return (dense, _norm("norm", hidden), weight("bias", config.vocab), *untied)
    if kind.endswith("ForSequenceClassification"):
        before = linear("classifier.dense", hidden, hidden, bias=True) if roberta else pooler
        return (before, weight("classifier", labels, hidden, bias=labels))
    if kind.endswith("ForTokenClassification"):
        return (weight("classifier", labels, hidden, bias=labels),)
    return (pooler,)


def modernbert(config: Config) -> Layout:
    """ModernBERT: gated, fused projections, no norm before the first attention."""
    hidden, ffn = config.hidden, config.ffn
    attention, mlp = config.flag("attention_bias"), config.flag("mlp_bias")
    bias = hidden if config.flag("norm_bias") else 0
    parts = (
        linear("attn.Wqkv", hidden, 3 * hidden, attention),
        linear("attn.Wo", hidden, hidden, attention),
        weight("mlp_norm", hidden, bias=bias),
        linear("mlp.Wi", hidden, 2 * ffn, mlp),
        linear("mlp.Wo", ffn, hidden, mlp),
    )
    normed = (*parts, weight("attn_norm", hidden, bias=bias))
    rest: tuple[Part, ...] = (
        weight("model.embeddings.tok_embeddings", config.vocab, hidden),
        weight("model.embeddings.norm", hidden, bias=bias),
        weight("model.final_norm", hidden, bias=bias),
    )
    kind, labels = config.architecture, config.labels
    if "For" in kind:
        rest += (
            linear("head.dense", hidden, hidden, config.flag("classifier_bias")),
            weight("head.norm", hidden, bias=bias),
        )
    if kind.endswith("ForMaskedLM"):
        untied = 0 if config.tied else config.vocab
        rest += (
            weight("decoder", untied, hidden, bias=config.vocab if config.flag("decoder_bias", default=True) else 0),
        )
    elif "For" in kind:
        rest += (weight("classifier", labels, hidden, bias=labels),)
    prefix = "model.layers.{}."
    return Layout((Group(prefix, range(1), parts), Group(prefix, range(1, config.layers), normed)), rest)
