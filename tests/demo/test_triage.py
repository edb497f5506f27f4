"""The demonstration's data: lawful, up to date, and held out for real. And the scoring, which forgives nothing."""

import json
import random
import re
from collections import Counter

import pytest

from demo import triage
from demo.score import parse, score

TRAIN = "train.jsonl"
HELDOUT = {"heldout_known.jsonl": 50, "heldout_separate.jsonl": 50, "heldout_typed.jsonl": 10}
VALIDATION = "validation.jsonl"
FILES = (TRAIN, VALIDATION, *HELDOUT)

RECORD = {"team": "billing", "urgency": "normal", "product": "camera", "order": "4821"}


def read(name):
    return [json.loads(line) for line in (triage.DATA / name).read_text(encoding="utf-8").splitlines()]


def messages(name):
    return [row["messages"][1]["content"] for row in read(name)]


def records(name):
    return [json.loads(row["messages"][2]["content"]) for row in read(name)]


def phrases(name):
    phrasings = triage.Phrasings.read(triage.PHRASINGS / name)
    lists = [phrasings.openings, phrasings.orders, *phrasings.problems.values(), *phrasings.cues.values()]
    return [phrase for phrases in lists for phrase in phrases if phrase]


def words(text):
    return re.findall(r"\{\w+\}|[\w']+", text.lower())


def runs(text, length):
    found = words(text)
    return {" ".join(found[start : start + length]) for start in range(len(found) - length + 1)}


@pytest.fixture(scope="module")
def made():
    return triage.make()


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_what_the_script_writes(made, name):
    stored = (triage.DATA / name).read_bytes()
    assert stored == triage.dump(made[name]).encode(), "run python -m demo.triage"


def test_the_script_writes_the_same_twice(made):
    assert triage.make() == made


def test_the_counts_are_what_the_demonstration_promises(made):
    assert set(made) == set(FILES)
    assert len(made[TRAIN]) >= 300
    assert {name: len(made[name]) for name in HELDOUT} == HELDOUT


@pytest.mark.parametrize("name", FILES)
def test_every_row_is_an_instruction_a_message_and_a_lawful_record(name):
    for row in read(name):
        assert set(row) == {"messages"}
        assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant"]
        instruction, message, answer = (message["content"] for message in row["messages"])
        record = json.loads(answer)
        assert instruction == triage.INSTRUCTION
        assert answer == json.dumps(record)
        assert list(record) == ["team", "urgency", "product", "order"]
        assert record["team"] in triage.TEAMS
        assert record["urgency"] in triage.URGENCIES
        assert not re.search(r"[{}]", message), "a slot was left open"
        assert message == " ".join(message.split())


@pytest.mark.parametrize("name", FILES)
def test_product_and_order_are_read_off_the_message(name):
    for message, record in zip(messages(name), records(name), strict=True):
        named = {product for product in triage.PRODUCTS if re.search(rf"\b{product}\b", message, re.IGNORECASE)}
        assert named == {record["product"]}, message
        assert re.findall(r"\b\d{4}\b", message) == ([record["order"]] if record["order"] else []), message


@pytest.mark.parametrize("name", FILES)
def test_every_label_is_used_and_a_constant_answer_gets_nowhere(name):
    for key, labels in (("team", triage.TEAMS), ("urgency", triage.URGENCIES)):
        counts = Counter(record[key] for record in records(name))
        assert set(counts) == set(labels)
        assert max(counts.values()) <= 1.25 * sum(counts.values()) / len(labels)


def test_the_mask_hides_names_products_and_numbers_and_nothing_else():
    assert triage.mask("Ana here. Order 4821: the camera costs 40.") == "_ here. order #: the _ costs #."
    assert triage.mask("Ben here. Order 17: the Router  costs 9.") == "_ here. order #: the _ costs #."
    assert triage.mask("The cameras are late.") == "the cameras are late."


@pytest.mark.parametrize("name", [VALIDATION, *HELDOUT])
def test_no_heldout_message_is_a_training_message_with_other_names_and_numbers(name):
    leaked = {triage.mask(message) for message in messages(name)} & {
        triage.mask(message) for message in messages(TRAIN)
    }
    assert not leaked


@pytest.mark.parametrize("name", HELDOUT)
def test_no_heldout_message_helps_to_choose_a_checkpoint(name):
    chosen_by = {triage.mask(message) for message in messages(VALIDATION)}
    assert not chosen_by & {triage.mask(message) for message in messages(name)}


def test_a_message_seen_in_training_is_written_anew():
    training = triage.Phrasings.read(triage.PHRASINGS / "training.json")

    def write(seen):
        numbers = iter([str(number) for number in range(1000, 2000)])
        return triage.write_heldout(triage.Writer(training, random.Random(1), numbers), seen)

    first = triage.mask(write(set())[0].message)
    assert first not in {triage.mask(example.message) for example in write({first})}


@pytest.mark.parametrize("name", HELDOUT)
def test_heldout_order_numbers_never_occur_in_training(name):
    assert not {r["order"] for r in records(name) if r["order"]} & {r["order"] for r in records(TRAIN)}


def test_separate_phrasings_share_no_phrase_with_the_training_ones():
    assert not {" ".join(words(p)) for p in phrases("separate.json")} & {
        " ".join(words(p)) for p in phrases("training.json")
    }


def test_separate_phrasings_share_no_run_of_five_words_with_the_training_ones():
    training = set().union(*(runs(phrase, 5) for phrase in phrases("training.json")))
    shared = {run for phrase in phrases("separate.json") for run in runs(phrase, 5)} & training
    assert not shared


def test_typed_messages_share_no_run_of_five_words_with_the_training_ones():
    training = set().union(*(runs(message, 5) for message in messages(TRAIN)))
    shared = {run for message in messages("heldout_typed.jsonl") for run in runs(message, 5)} & training
    assert not shared


def test_a_phrasings_file_without_a_team_is_refused(tmp_path):
    raw = json.loads((triage.PHRASINGS / "training.json").read_text(encoding="utf-8"))
    del raw["problem"]["shipping"]
    (tmp_path / "short.json").write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(ValueError, match="problem must have exactly the keys billing, shipping, technical, account"):
        triage.Phrasings.read(tmp_path / "short.json")


@pytest.mark.parametrize(
    "answer",
    [
        json.dumps(RECORD),
        json.dumps(RECORD, indent=2) + "\n",
        json.dumps(dict(reversed(RECORD.items()))),
    ],
)
def test_the_whole_record_is_an_exact_match(answer):
    result = score([answer], [RECORD])
    assert result.exact == 1
    assert result.exact_match == 1.0
    assert result.fields == dict.fromkeys(RECORD, 1)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "null",
        "[]",
        "Here it is: " + json.dumps(RECORD),
        json.dumps(RECORD) + " I hope this helps!",
        json.dumps(RECORD | {"urgency": "high"}),
        json.dumps(RECORD | {"order": 4821}),
        json.dumps(RECORD | {"team": "Billing"}),
        json.dumps(RECORD | {"note": "none"}),
        json.dumps({key: value for key, value in RECORD.items() if key != "order"}),
        str(RECORD),
    ],
)
def test_anything_but_the_whole_record_is_no_exact_match(answer):
    assert score([answer], [RECORD]).exact == 0


def test_fields_are_counted_one_by_one():
    answers = [json.dumps(RECORD | {"urgency": "high"}), json.dumps({"team": "billing"}), "no JSON"]
    result = score(answers, [RECORD, RECORD, RECORD])
    assert result.fields == {"team": 2, "urgency": 0, "product": 1, "order": 1}
    assert (result.rows, result.exact) == (3, 0)


def test_a_missing_key_is_not_a_null_one():
    assert score(['{"team": "billing"}'], [RECORD | {"order": None}]).fields["order"] == 0


def test_answers_and_records_must_pair_up():
    with pytest.raises(ValueError, match="1 answers for 2 expected records"):
        score(["{}"], [RECORD, RECORD])


def test_parse_takes_the_answer_whole():
    assert parse(' {"a": 1}\n') == {"a": 1}
    assert parse('{"a": 1} and more') is None
