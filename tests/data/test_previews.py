"""A preview shows what the trainer trains on, in a process that cannot run away."""

from __future__ import annotations

import time

import psutil
import pytest

from tests.models import CHATML
from tunesmith.data import previews
from tunesmith.data.previews import PreviewRequest
from tunesmith.data.rows import RowRules
from tunesmith.data.show import show
from tunesmith.errors import DataError

CHAT = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo 😀"}]}
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture
def ask(run):
    def made(**changes) -> PreviewRequest:
        whole = {"chat_template": CHATML, "sequence_limit": 64, "rows": 5, "rules": RowRules(), **changes}
        return PreviewRequest(data=str(run / "inputs/data"), model=str(run / "inputs/model"), **whole)

    return made


def test_rows_are_shown_in_pieces_with_their_mask(put, ask, tmp_path):
    put("train.jsonl", CHAT, {"prompt": "a b", "completion": " c"}, CHAT)
    found = previews.run(ask(rows=2), tmp_path)
    assert found["sequence_limit"] == 64
    first, second = found["rows"]
    pieces = [(each["text"], each["trained"]) for each in first["segments"]]
    assert pieces == [
        ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", False),
        ("yo 😀<|im_end|>", True),
        ("\n", False),
    ]
    assert (first["file"], first["line"], first["format"]) == ("train.jsonl", 1, "messages")
    assert first["tokens"] == first["whole_tokens"] == sum(each["tokens"] for each in first["segments"])
    assert [(each["text"], each["trained"]) for each in second["segments"]] == [("a b", False), (" c<|im_end|>", True)]


def test_what_is_cut_is_not_shown_and_counted(put, ask, tokenizer):
    put("train.jsonl", {"prompt": "abcdefgh", "completion": "XY"})
    (row,) = show(ask(sequence_limit=5)).rows
    assert "".join(each.text for each in row.segments) == "ghXY<|im_end|>"
    assert (row.tokens, row.whole_tokens, row.truncated) == (5, 11, True)


def test_pieces_keep_their_first_space(run, put, ask):
    """A tokenizer of the SentencePiece kind writes a space as part of a word and drops the first one of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = {"</s>": 0, "<unk>": 1, "▁a": 2, "▁b": 3, "▁c": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    (run / "inputs/model").unlink()
    (run / "inputs/model").mkdir()
    tokenizer.save(str(run / "inputs/model/tokenizer.json"))
    (run / "inputs/model/tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    put("train.jsonl", {"prompt": "a b", "completion": "c"})
    (row,) = show(ask()).rows
    assert [each.text for each in row.segments] == ["a b", " c</s>"]


def test_a_bad_row_among_them_is_told_by_file_line_and_key(put, ask, tmp_path):
    put("train.jsonl", CHAT, {"text": 1}, CHAT)
    with pytest.raises(DataError, match=r"^1 bad row: train\.jsonl line 2: key 'text': must be a string"):
        previews.run(ask(), tmp_path)
    assert len(previews.run(ask(rows=1), tmp_path)["rows"]) == 1


def test_a_template_that_loops_is_stopped_and_leaves_no_process(put, ask, tmp_path):
    put("train.jsonl", CHAT)
    began = time.monotonic()
    with pytest.raises(DataError, match=r"the chat template takes too long: .* after 5 s and was stopped"):
        previews.run(ask(chat_template=LOOPS, seconds=5.0), tmp_path)
    assert time.monotonic() - began < 20
    children = psutil.Process().children()
    assert not [child for child in children if str(tmp_path / "request.json") in child.cmdline()]


def test_a_process_whose_caller_is_gone_ends_by_itself(put, ask, tmp_path):
    put("train.jsonl", CHAT)
    ask(chat_template=LOOPS, seconds=1.0).write(tmp_path / "request.json")
    command = [previews.sys.executable, "-m", "tunesmith.data", "preview", str(tmp_path / "request.json")]
    done = previews.subprocess.run(command, capture_output=True, timeout=30, check=False)
    assert done.returncode == -previews.signal.SIGALRM


def test_a_template_that_eats_memory_is_stopped(put, ask, tmp_path):
    put("train.jsonl", CHAT)
    with pytest.raises(DataError, match="rendering may take 4 GB"):
        previews.run(ask(chat_template="{{ 'x' * (2 ** 40) }}"), tmp_path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"chat_template": "{% for %}"}, "the chat template is not lawful jinja"),
        ({"chat_template": ""}, "the model has no chat template"),
        ({"model": "/nowhere/base"}, "base has no tokenizer.json"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(put, ask, tmp_path, changes, problem):
    put("train.jsonl", CHAT)
    with pytest.raises(DataError, match=problem):
        previews.run(ask().model_copy(update=changes), tmp_path)
