"""Text comes out in whole characters, and stop strings never come out."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.models import tiny_tokenizer
from tunesmith.data.tokens import Tokenizer
from tunesmith.generate.text import BROKEN, StopStrings, TextStream


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    directory: Path = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(directory)
    (directory / "config.json").write_text("{}")
    return Tokenizer.load(directory)


def streamed(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    stream = TextStream(tokenizer.decode)
    return [*(stream.push(token) for token in ids), stream.finish()]


@pytest.mark.parametrize("text", ["wörld 🙂🧑‍🚀!", "日本語のテキスト", "a\n\n  b", "é" * 20])
def test_characters_that_span_tokens_come_whole(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert len(ids) > len(text) / 2
    pieces = streamed(tokenizer, ids)
    assert "".join(pieces) == text
    assert not any(BROKEN in piece for piece in pieces)


def test_an_emoji_waits_for_its_last_byte(tokenizer: Tokenizer) -> None:
    assert streamed(tokenizer, tokenizer.encode("🙂")) == ["", "", "", "🙂", ""]


@given(ids=st.lists(st.integers(3, 258), max_size=30))
def test_any_bytes_add_up_to_their_decoding(tokenizer: Tokenizer, ids: list[int]) -> None:
    assert "".join(streamed(tokenizer, ids)) == tokenizer.decode(ids)


def test_a_text_that_ends_inside_a_character_says_so(tokenizer: Tokenizer) -> None:
    assert "".join(streamed(tokenizer, tokenizer.encode("ok🙂")[:-1])) == "ok" + BROKEN


@given(
    text=st.text("ab", max_size=30),
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4),
    cuts=st.sets(st.integers(0, 30)),
)
def test_text_ends_before_the_first_stop_however_it_is_cut(text: str, stops: list[str], cuts: set[int]) -> None:
    places = [place for stop in stops if (place := text.find(stop)) >= 0]
    edges = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    watch, given_out = StopStrings(stops), ""
    for begin, end in itertools.pairwise(edges):
        piece, stopped = watch.push(text[begin:end])
        given_out += piece
        assert not any(stop in given_out for stop in stops)
        if stopped:
            # A cut may end the text earlier than a longer stop that begins sooner but was not there yet.
            assert places
            break
    else:
        assert not places
        given_out += watch.finish()
    assert given_out == text if not places else text.startswith(given_out)


def test_text_that_cannot_become_a_stop_is_not_held_back() -> None:
    watch = StopStrings(["END"])
    assert watch.push("one E") == ("one ", False)
    assert watch.push("xN") == ("ExN", False)
    assert watch.push(" EN") == (" ", False)
    assert watch.push("D more") == ("", True)
