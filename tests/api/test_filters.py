"""The filter grammar: three encodings of one tree, and a plain no to everything else. Contract 1.4."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.api import filters
from tunesmith.api.filter_query import LONGEST_FILTER, parse
from tunesmith.api.filters import DEEPEST, MOST_TESTS, AllOf, AnyOf, Filter, Not, Op, dotted, echo, steps_of
from tunesmith.errors import BadRequest


def is_(field: str, value: Any, op: Op = Op.EQ) -> Filter:
    return filters.Test(field, op, value)


def text(query: str) -> Filter | None:
    return parse([("filter", query)])


@pytest.mark.parametrize(
    ("pairs", "tree"),
    [
        ([("filter[name]", "m3")], is_("name", "m3")),
        ([("filter[name]", "")], is_("name", None)),
        ([("filter[name][$like]", "m")], is_("name", "m", Op.LIKE)),
        ([("filter[name][like]", "m")], is_("name", "m", Op.LIKE)),
        ([("filter[created_at][$gte]", "2026-01-01T00:00:00Z")], is_("created_at", "2026-01-01T00:00:00Z", Op.GTE)),
        ([("filter[name][$in]", "a,b")], is_("name", ["a", "b"], Op.IN)),
        ([("filter[name][nin]", "a")], is_("name", ["a"], Op.NIN)),
        ([("filter[name][$in]", '["a,b", "c"]')], is_("name", ["a,b", "c"], Op.IN)),
        ([("filter[adapters][$exists]", "true")], is_("adapters", "true", Op.EXISTS)),
        ([("filter[adapters][name][$like]", "x")], is_("adapters.name", "x", Op.LIKE)),
        ([("filter[custom_fields][team]", "a")], is_("custom_fields.team", "a")),
        ([("filter[$not][name]", "m3")], Not(is_("name", "m3"))),
        ([("filter[not][name][$like]", "m3")], Not(is_("name", "m3", Op.LIKE))),
        ([("filter[name][$not][$like]", "m3")], Not(is_("name", "m3", Op.LIKE))),
        ([("filter[name]", "a"), ("filter[project]", "p")], AllOf((is_("name", "a"), is_("project", "p")))),
        ([("filter[$or][name]", "a"), ("filter[$or][project]", "p")], AnyOf((is_("name", "a"), is_("project", "p")))),
        ([("filter[$or][0][name]", "a"), ("filter[$or][1][name]", "b")], AnyOf((is_("name", "a"), is_("name", "b")))),
        (
            [("filter[created_at][$gt]", "2026"), ("filter[created_at][$lt]", "2027")],
            AllOf((is_("created_at", "2026", Op.GT), is_("created_at", "2027", Op.LT))),
        ),
        ([("filter", ""), ("filter[name]", "a")], is_("name", "a")),
    ],
)
def test_brackets(pairs: list[tuple[str, str]], tree: Filter) -> None:
    assert parse(pairs) == tree


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ('{"name": "a"}', is_("name", "a")),
        ('{"name": null}', is_("name", None)),
        ('{"name": {"$in": ["a", "b"]}}', is_("name", ["a", "b"], Op.IN)),
        ('{"name": ["a", "b"]}', is_("name", ["a", "b"], Op.IN)),
        ('{"enabled": true, "rank": {"$gt": 8}}', AllOf((is_("enabled", True), is_("rank", 8, Op.GT)))),
        ('{"custom_fields": {"a": {"b": 1}}}', is_("custom_fields.a.b", 1)),
        ('{"custom_fields.a.b": 1}', is_("custom_fields.a.b", 1)),
        ('{"custom_fields": {"a.b": 1}}', is_('custom_fields["a.b"]', 1)),
        ('{"$or": [{"name": "a"}, {"$not": {"name": "b"}}]}', AnyOf((is_("name", "a"), Not(is_("name", "b"))))),
    ],
)
def test_json(query: str, tree: Filter) -> None:
    assert text(query) == tree


@pytest.mark.parametrize(
    ("query", "tree"),
    [
        ('name:"x"', is_("name", "x")),
        ('name~"x"', is_("name", "x", Op.LIKE)),
        ("rank>=8", is_("rank", 8, Op.GTE)),
        ("rank > -1.5e2", is_("rank", -150.0, Op.GT)),
        ('created_at < "2026-01-01"', is_("created_at", "2026-01-01", Op.LT)),
        ("enabled:true", is_("enabled", True)),
        ("project:null", is_("project", None)),
        ('name IN ["a", "b"]', is_("name", ["a", "b"], Op.IN)),
        ("rank NOT IN [1, 2]", is_("rank", [1, 2], Op.NIN)),
        ('-name:"x"', Not(is_("name", "x"))),
        ('name:"a" project:"b"', AllOf((is_("name", "a"), is_("project", "b")))),
        ('name:"a" AND -(project:"b" OR project:null)', None),
        ('custom_fields["a b"]["c"]:"x"', is_('custom_fields["a b"].c', "x")),
        ("custom_fields.a-b:1", is_("custom_fields.a-b", 1)),
        ('name:"say \\"hi\\" \\u00e9"', is_("name", 'say "hi" é')),
    ],
)
def test_text(query: str, tree: Filter | None) -> None:
    if tree is None:
        tree = AllOf((is_("name", "a"), Not(AnyOf((is_("project", "b"), is_("project", None))))))
    assert text(query) == tree


def test_and_binds_tighter_than_or() -> None:
    a, b, c = (is_(name, 1) for name in "abc")
    assert text("a:1 OR b:1 c:1") == text("a:1 or b:1 and c:1") == AnyOf((a, AllOf((b, c))))
    assert text("(a:1 OR b:1) c:1") == AllOf((AnyOf((a, b)), c))


def test_lists_of_objects_as_the_published_client_writes_them() -> None:
    both = [{"name": {"$like": "it's"}}, {"base_model": None}]
    value = ",".join(str(each) for each in both)
    assert parse([("filter[$and]", value)]) == AllOf((is_("name", "it's", Op.LIKE), is_("base_model", None)))
    assert parse([("filter[$or]", str(both[0]))]) == AnyOf((is_("name", "it's", Op.LIKE),))
    nested = {"$or": [{"name": "a"}, {"enabled": True}]}
    assert parse([("filter[$and]", str(nested))]) == AllOf((AnyOf((is_("name", "a"), is_("enabled", True))),))
    assert parse([("filter[$and]", json.dumps(both))]) == parse([("filter[$and]", value)])


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([("filter[name][$foo]", "x")], r"^'\$foo' is not a valid FilterOperator$"),
        ([("filter[$foo]", "x")], r"^'\$foo' is not a valid FilterOperator$"),
        ([("filter[$eq]", "x")], "needs a field in front"),
        ([("filter", "name=3")], r"^Invalid filter query: name=3 \(at character 5"),
        ([("filter", 'name:"x')], "^Invalid filter query: .*in double quotes"),
        ([("filter", "name:x")], "text in double quotes"),
        ([("filter", "(a:1")], r"the end, where '\)' should stand"),
        ([("filter", "a:1)")], "'AND, OR or the end' should|AND, OR or the end should stand"),
        ([("filter", "a NOT 1")], "where IN should stand"),
        ([("filter", "a IN []")], "Invalid filter query"),
        ([("filter", '{"name": ')], "^Invalid filter value: .*Array and object values must be valid JSON"),
        ([("filter[name]", "[a")], "^Invalid filter value: '\\[a'. Array and object values must be valid JSON"),
        ([("filter[$and]", "x")], "Invalid filter value"),
        ([("filter[$and]", "[]")], "needs a list of at least one condition"),
        ([("filter[$not]", "{}")], "nothing to deny"),
        ([("filter[name]", "a"), ("filter[$not][project]", "b")], "beside fields at the same level"),
        ([("filter[name]", "a"), ("filter[name]", "b")], r"^Invalid filter: 'filter\[name\]' says something"),
        ([("filter[name]", "a"), ("filter[name][$like]", "b")], "says something that another part has said"),
        ([("filter[name", "a")], "cannot be read"),
        ([("filter[]", "a")], "cannot be read"),
        ([("filter", '{"name": {"$eq": {}}, "a": NaN}')], "must be text, a finite number"),
        ([("filter", '{"name": 1e999}')], "finite number"),
        ([("filter", '{"name": 99999999999999999999}')], "64 bits"),
        ([("filter", '{"name": "\\u0000"}')], "NUL"),
        ([("filter", '{"name": "\\ud800"}')], "half a surrogate pair"),
        ([("filter", '{"": 1}')], "not the name of a field"),
        ([("filter", "{1: 2}")], "not the name of a field"),
        ([("filter", '{"\\ud800": 2}')], r"'\\ud800' is not the name of a field"),
        ([("filter", '{"$\\ud800": 2}')], r"'\$\\ud800' is not a valid FilterOperator"),
    ],
)
def test_what_cannot_be_understood_is_named(pairs: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        parse(pairs)


@pytest.mark.parametrize(
    "query",
    [
        "-" * 10_000 + "a:1",
        "(" * 10_000,
        "NOT " * 5_000 + "a:1",
        '{"a":' * 5_000,
        "{'a':" + "-" * 5_000 + "1}",
        "{'a':" + "1+" * 5_000 + "1}",
        "{'a': [" + "(" * 80 + ")" * 80 + "]}",
        '{"$not": ' * (DEEPEST + 1) + '{"a": 1}' + "}" * (DEEPEST + 1),
        " ".join("a:1" for _ in range(MOST_TESTS + 1)),
        'a:"' + "x" * LONGEST_FILTER + '"',
        '{"a": ' + "1" * 5_000 + "}",
        "a:" + "1" * 5_000,
        "a IN [" + ",".join("1" * 1001) + "]",
    ],
)
def test_size_and_depth_have_limits(query: str) -> None:
    with pytest.raises(BadRequest):
        text(query)


def test_no_filter_is_none() -> None:
    assert parse([]) is None
    assert text("") is None
    assert text("{}") is None
    assert echo(None) is None


def test_the_echo_is_the_tree_as_json() -> None:
    assert echo(parse([("filter[name]", "ws1")])) == {"name": {"$eq": "ws1"}}
    assert echo(text('name:"ws1" OR name~"def"')) == {"$or": [{"name": {"$eq": "ws1"}}, {"name": {"$like": "def"}}]}


NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True).filter(
    lambda name: name not in {*(op.value[1:] for op in Op), "and", "or", "not"}
)
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8).filter(
    lambda key: key.removeprefix("$") not in {*(op.value[1:] for op in Op), "and", "or", "not"}
)
FIELDS = st.builds(lambda name, keys: dotted([name, *keys]), NAMES, st.lists(KEYS, max_size=2))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
)
TESTS = st.builds(
    filters.Test, FIELDS, st.sampled_from([op for op in Op if op not in (Op.IN, Op.NIN)]), SCALARS
) | st.builds(filters.Test, FIELDS, st.sampled_from([Op.IN, Op.NIN]), st.lists(SCALARS, max_size=4))
TREES = st.recursive(
    TESTS,
    lambda inner: (
        st.builds(AllOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=8,
)


@given(TREES)
@settings(max_examples=150, deadline=None)
def test_what_is_echoed_is_understood_again(tree: Filter) -> None:
    assert text(json.dumps(echo(tree))) == tree


@given(st.from_regex(r"[^\W\d]\w{0,9}", fullmatch=True), st.lists(st.text(max_size=10), max_size=3))
@settings(max_examples=150, deadline=None)
def test_paths_of_any_keys_are_told_apart(field: str, keys: list[str]) -> None:
    assert list(steps_of(dotted([field, *keys]))) == [field, *keys]


WORDS = r"""name $and $not [ ] { } ( ) " ' : ~ > = , - AND IN null 1 -2.5 \ $like filter \ud800 é datetime ."""
BITS = st.sampled_from([*WORDS.split(" "), " ", "\n", "\0"])
GARBAGE = st.lists(BITS | st.text(max_size=4), max_size=30).map("".join)
KEYED = st.just("filter") | GARBAGE.map(lambda bits: f"filter[{bits}]")


@given(st.lists(st.tuples(KEYED, GARBAGE), max_size=3))
@settings(max_examples=400, deadline=None)
def test_garbage_is_a_tree_or_a_bad_request(pairs: list[tuple[str, str]]) -> None:
    said: Any
    try:
        said = echo(parse(pairs))
    except BadRequest as refused:
        said = refused.message
    json.dumps(said, allow_nan=False, ensure_ascii=False).encode()
