"""What will not fit is refused before the first step, with numbers that are right and a change that fits."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

from tests.models import linear_names
from tests.plans import plan
from tests.train.runs import layout, losses, train
from tunesmith.data.packs import best_fit
from tunesmith.errors import EngineError
from tunesmith.handoff.plan import LoraPart
from tunesmith.model.attention import attend_by_rows
from tunesmith.model.head import Head, hidden_states
from tunesmith.model.lora import Noise, adapt
from tunesmith.train import loop, memory, rehearsal
from tunesmith.train.batches import Layout, cut
from tunesmith.train.crew import Crew
from tunesmith.train.losses import summed_cross_entropy
from tunesmith.train.memory import available_bytes, peak_bytes
from tunesmith.train.rehearsal import foresee, is_want_of_memory, rehearse

CPU = torch.device("cpu")


class RandomRows:
    """Rows of these lengths, of which the second half is trained on."""

    def __init__(self, *lengths: int) -> None:
        self.lengths = np.array(lengths, np.int64)

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, row):
        return np.random.default_rng(row).integers(0, 320, self.lengths[row], np.int32)

    def mask(self, row):
        return (np.arange(self.lengths[row]) >= self.lengths[row] // 2).astype(np.uint8)


class Student:
    """A small Llama with adapters, and the forward and backward pass of a step."""

    def __init__(self, dropout: float = 0.0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            shape = {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
            config = LlamaConfig(**shape, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=4096)
            self.model = LlamaForCausalLM(config).requires_grad_(False)
        attend_by_rows(self.model, "sdpa")
        self.noise, self.head = Noise(1), Head.of(self.model)
        adapters = adapt(self.model, LoraPart(rank=4, alpha=8, dropout=dropout, modules=linear_names()), self.noise)
        self.trained = [weight for each in adapters.values() for weight in (each.A_rI, each.B_Or)]
        self.model.train()

    def learn(self, part):
        self.noise.step, self.noise.rows, self.noise.lengths = 0, part.rows, part.lengths
        self.noise.flat = part.bounds is not None
        hidden_BTH = hidden_states(self.model, part.ids_BT, part.bounds)
        loss = summed_cross_entropy(hidden_BTH.flatten(0, 1)[part.places_N], part.targets_N, self.head)
        return float(loss.detach()), torch.autograd.grad(loss, self.trained)

    def try_it(self, rows, given_plan, hands: int = 1):
        rehearsed(self, rows, given_plan, hands=hands)


def rehearsed(student, rows, given_plan, learn=None, hands=1, device=CPU):
    how = Layout(tokens_per_pass=given_plan.schedule.tokens_per_pass, device=device, flat=True, hands=hands)
    rehearse(learn or student.learn, student.trained, rows, given_plan, how, Crew(hands))


@pytest.fixture(scope="module")
def student():
    return Student()


def in_one(rows, chosen=None):
    """All of them as one flat pass."""
    return layout(1).in_one(rows, range(len(rows)) if chosen is None else chosen)


@pytest.mark.parametrize(
    "lengths", [(1500,), (700, 650), (190, 190, 190), (190, 180, 180, 175, 170, 168), (1400, 1300, 1200, 900)]
)
def test_what_a_pass_holds_is_foreseen_from_a_small_part_of_it(student, lengths):
    rows = RandomRows(*lengths)
    whole = in_one(rows)
    need = foresee(student.learn, rows, range(len(rows)), layout(1))
    assert need.of(sum(lengths)) == pytest.approx(peak_bytes(lambda: student.learn(whole)), rel=0.1)


def test_the_peak_is_that_of_the_tensors_held_at_one_moment():
    """Three of 4 MB are made, no more than two are held; what was there before does not count."""
    there = torch.ones(1 << 20)

    def work():
        first = there + 1
        second = first * 2
        del first
        return second.view(1024, 1024) @ there.view(1024, 1024)

    assert peak_bytes(work) == 8 << 20


def test_what_fits_passes_and_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(rehearsal, "available_bytes", lambda device: 1 << 40)
    one, rows = Student(dropout=0.3), RandomRows(40, 33, 61, 12, 25)
    part = in_one(rows)
    before, random = one.learn(part), torch.get_rng_state()
    state = {name: value.clone() for name, value in one.model.state_dict().items()}
    one.try_it(rows, plan(schedule={"tokens_per_pass": 128}), hands=2)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in one.model.state_dict().items())
    assert all(weight.grad is None for weight in one.model.parameters())
    after = one.learn(part)
    assert before[0] == after[0]
    assert all(torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))


def test_the_longest_pass_is_run_whole_and_shared_by_the_crew(student, monkeypatch):
    monkeypatch.setattr(rehearsal, "available_bytes", lambda device: None)
    seen = []

    def learn(part):
        seen.append(part)
        return student.learn(part)

    rows = RandomRows(30, 10, 50, 20, 40, 7)
    given_plan = plan(schedule={"tokens_per_pass": 100, "rows_per_step": 4})
    rehearsed(student, rows, given_plan, learn, hands=2)
    assert sorted(seen[-1].lengths + seen[-2].lengths) == [10, 40, 50]
    assert set(seen[-1].rows + seen[-2].rows) == {2, 4, 1}


def refused(student, rows, given_plan, has, monkeypatch) -> str:
    monkeypatch.setattr(rehearsal, "available_bytes", lambda device: has)
    ran = []

    def learn(part):
        ran.append(part.ids_BT.numel())
        return student.learn(part)

    with pytest.raises(EngineError) as error:
        rehearsed(student, rows, given_plan, learn)
    assert error.value.code == "TrainingEnvironmentError"
    longest = sum(rows.lengths[layout(given_plan.schedule.tokens_per_pass).longest(rows.lengths, 4)])
    assert max(ran) < longest, "what does not fit is never run"
    return error.value.message


def test_a_pass_of_many_rows_that_does_not_fit_is_told_the_largest_micro_batch_that_does(student, monkeypatch):
    rows, four = RandomRows(*[400] * 8), {"data": {"sequence_limit": 400}, "schedule": {"tokens_per_pass": 1600}}
    needs = peak_bytes(lambda: student.learn(in_one(rows, range(4))))
    message = refused(student, rows, plan(**four), round(needs * 0.8), monkeypatch)
    assert re.search(r"longest pass \(4 rows, 1,600 tokens\) needs \d+\.\d MB .* has \d+\.\d MB left", message)
    assert "batch.micro_batch_size 3 in place of 4 fits" in message
    assert "per_device_train_batch_size" in message
    assert "use_gradient_checkpointing" in message
    three = {"data": {"sequence_limit": 400}, "schedule": {"tokens_per_pass": 1200}}
    student.try_it(rows, plan(**three))


def test_a_row_that_does_not_fit_is_told_the_longest_that_does(student, monkeypatch):
    rows, alone = RandomRows(2000, 30), {"data": {"sequence_limit": 2048}, "schedule": {"tokens_per_pass": 2048}}
    has = round(peak_bytes(lambda: student.learn(in_one(rows, [0]))) * 0.6)
    message = refused(student, rows, plan(**alone, model={"recompute": "layers"}), has, monkeypatch)
    assert "checkpointing" not in message
    fits = int(re.search(r"training\.max_seq_length (\d+) fits", message)[1])
    assert fits == pytest.approx(1200, rel=0.15)
    shorter = {"data": {"sequence_limit": fits}, "schedule": {"tokens_per_pass": fits}}
    student.try_it(RandomRows(fits, 30), plan(**shorter))


def test_the_optimizers_state_counts_before_it_is_there(student, monkeypatch):
    rows, given = RandomRows(600, 600), {"schedule": {"tokens_per_pass": 600}}
    needs = peak_bytes(lambda: student.learn(in_one(rows, [0])))
    state = 8 * sum(weight.numel() for weight in student.trained)
    assert state > 50_000
    monkeypatch.setattr(rehearsal, "available_bytes", lambda device: needs + state // 2)
    sgd = plan(**given, optimizer={"name": "sgd"})
    student.try_it(rows, sgd)
    refused(student, rows, plan(**given), needs + state // 2, monkeypatch)


def room(given_plan, has, monkeypatch, dtype=torch.float32) -> str:
    """What is said of a Llama of 5,000 weights that exists in shape only; "" = there is room."""
    monkeypatch.setattr(rehearsal, "available_bytes", lambda device: has)
    with torch.device("meta"):
        shape = {"vocab_size": 50, "hidden_size": 20, "intermediate_size": 30, "num_hidden_layers": 1}
        model = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2, tie_word_embeddings=True)).to(dtype)
    assert sum(weight.numel() for weight in model.parameters()) == 20 * (50 + 4 * 20 + 3 * 30 + 3)
    try:
        rehearsal.check_room(model, given_plan, CPU)
    except EngineError as error:
        return error.message
    return ""


def test_adapters_that_cannot_fit_are_told_the_largest_rank_that_does(monkeypatch):
    a_rank = 4 * (20 + 20) + 3 * (20 + 30)

    def of_rank(rank, **more):
        return plan(adapter={"rank": rank, "modules": linear_names(1)}, **more)

    has = 16 * a_rank * 50 + 15
    message = room(of_rank(1000), has, monkeypatch)
    assert f"adapters of rank 1,000: {1000 * a_rank:,} trained weights" in message
    assert "take 5.0 MB beside the model, and this machine has 0.2 MB left: training.lora.rank 50 fits" in message
    assert room(of_rank(51), has, monkeypatch)
    assert not room(of_rank(50), has, monkeypatch)
    assert not room(of_rank(100, optimizer={"name": "sgd"}), has, monkeypatch), "which has no running means"
    assert "adapt fewer modules" in room(of_rank(1), 100, monkeypatch)
    assert not room(of_rank(1000), None, monkeypatch), "where the system does not say"


@pytest.mark.parametrize(("dtype", "each"), [(torch.bfloat16, 16), (torch.float32, 12)])
def test_all_weights_that_cannot_fit_are_told_of_lora(dtype, each, monkeypatch):
    whole, count = plan(adapter=None, result={"form": "model"}), 20 * (50 + 4 * 20 + 3 * 30 + 3)
    message = room(whole, each * count - 1, monkeypatch, dtype)
    assert f"all weights: {count:,} trained weights" in message
    assert "finetuning_type lora trains few of them" in message
    assert not room(whole, each * count, monkeypatch, dtype)


def test_a_run_whose_adapters_cannot_fit_ends_before_they_are_made(make_run, monkeypatch):
    monkeypatch.setattr(rehearsal, "available_bytes", lambda device: 1 << 30)
    with pytest.raises(EngineError, match=r"adapters of rank 100,000,000: .* training.lora.rank [\d,]+ fits") as error:
        train(make_run(adapter={"rank": 10**8}))
    assert error.value.code == "TrainingEnvironmentError"


def test_where_nothing_fits_a_smaller_model_is_advised(student, monkeypatch):
    message = refused(student, RandomRows(600, 300), plan(schedule={"tokens_per_pass": 600}), 1000, monkeypatch)
    assert "a smaller model, or a machine with more memory" in message


def test_a_gpu_that_runs_out_of_memory_is_asked_for_numbers_afterwards(student, monkeypatch):
    """Without one: the first, whole pass fails as it would there."""
    monkeypatch.setattr(rehearsal, "available_bytes", lambda device: 10**6)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    rows = RandomRows(1000)

    def learn(part):
        if part.ids_BT.numel() == 1000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return student.learn(part)

    in_one = Layout.in_one
    monkeypatch.setattr(Layout, "in_one", lambda self, *rows: in_one(replace(self, device=CPU), *rows))
    with pytest.raises(EngineError, match=r"the GPU has 1\.0 MB left: training\.max_seq_length \d+ fits") as error:
        rehearsed(student, rows, plan(), learn, device=SimpleNamespace(type="cuda"))
    assert error.value.code == "CudaError"


def test_on_a_gpu_the_pass_is_run_beside_room_for_the_optimizers_state(student, monkeypatch):
    in_one = Layout.in_one
    monkeypatch.setattr(Layout, "in_one", lambda self, *rows: in_one(replace(self, device=CPU), *rows))

    def holds(name):
        given, gpu = plan(optimizer={"name": name}), SimpleNamespace(type="cuda")
        return peak_bytes(lambda: rehearsed(student, RandomRows(300), given, device=gpu))

    assert holds("adam") - holds("sgd") == 8 * sum(weight.numel() for weight in student.trained)


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_want_of_memory_is_known_by_what_torch_says(error, is_one):
    assert is_want_of_memory(error) == is_one


def test_where_memory_is_ample_an_eighth_is_enough_of_a_look(student, monkeypatch):
    monkeypatch.setattr(rehearsal, "available_bytes", lambda device: 1 << 40)
    ran = []

    def learn(part):
        ran.append(part.ids_BT.numel())
        return student.learn(part)

    alone = plan(schedule={"tokens_per_pass": 800})
    rehearsed(student, RandomRows(800, 40), alone, learn)
    assert ran == [100, 800]


def test_another_error_of_the_pass_stays_what_it_is(student, monkeypatch):
    monkeypatch.setattr(rehearsal, "available_bytes", lambda device: None)

    def learn(part):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        rehearsed(student, RandomRows(10), plan(), learn)


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 50), min_size=1, max_size=30),
    budget=st.integers(2, 120),
    most=st.integers(1, 8),
    flat=st.booleans(),
)
def test_no_step_has_a_pass_that_is_much_longer(lengths, budget, most, flat):
    chosen = layout(budget, flat).longest(np.array(lengths), most)

    def size(rows):
        return sum(lengths[row] for row in rows) if flat else len(rows) * max(lengths[row] for row in rows)

    assert len(set(chosen)) == len(chosen) <= most
    assert size(chosen) <= max(budget, max(lengths))
    rule = best_fit if flat else cut
    assert len(rule([lengths[row] for row in chosen], budget)) == 1, "it is one that the cutting makes"
    for start in range(len(lengths)):
        step = list(range(start, min(start + most, len(lengths))))
        for group in rule([lengths[row] for row in step], budget):
            reached = size([step[place] for place in group])
            # filling up greedily may miss the best sum, by less than half
            assert reached <= (2 * size(chosen) if flat else size(chosen))


def test_a_row_that_may_not_share_a_pass_is_alone_in_it():
    lengths = np.array([10, 90, 40, 30])
    assert layout(100).longest(lengths, 4) == [1, 0]
    assert layout(100, longest_shared=50).longest(lengths, 4) == [1]
    assert layout(100, longest_shared=5).longest(lengths, 4) == [1]
    assert layout(100, longest_shared=50).longest(np.array([40, 60, 45]), 4) == [2, 0]


def test_a_run_that_rehearsed_is_bit_identical_to_one_that_did_not(make_run, monkeypatch):
    for name, adapter in (("adapter", {"dropout": 0.2}), ("whole", None)):
        runs = [make_run(f"{name}-{number}", adapter=adapter) for number in (1, 2)]
        rehearsed = train(runs[0])
        with monkeypatch.context() as patched:
            patched.setattr(loop, "rehearse", lambda *given, **named: None)
            without = train(runs[1])
        assert losses(rehearsed) == losses(without)
        weights = [
            {file.path: file.digest for file in events[-1].files if file.path.endswith(".safetensors")}
            for events in (rehearsed, without)
        ]
        assert weights[0] == weights[1] != {}


def test_a_limit_of_a_control_group_bounds_what_is_available(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    assert available_bytes(CPU) is None
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal:       2000 kB\nMemAvailable:    1000 kB\n")
    assert available_bytes(CPU) == 1000 * 1024

    def group(directory, **files):
        directory.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (directory / name.replace("__", ".")).write_text(value)

    (tmp_path / "proc/self/cgroup").write_text("0::/jobs/one\n")
    group(tmp_path / "cgroup/jobs/one", memory__max="max\n", memory__current="5\n")
    assert available_bytes(CPU) == 1000 * 1024
    stat = "anon 100\ninactive_file 300\n"
    group(tmp_path / "cgroup/jobs", memory__max="900000\n", memory__current="400500\n", memory__stat=stat)
    assert available_bytes(CPU) == 900000 - 400500 + 300
    (tmp_path / "proc/self/cgroup").write_text("5:cpu:/x\n4:memory:/x\n")
    group(tmp_path / "cgroup/memory", memory__limit_in_bytes="700\n", memory__usage_in_bytes="900\n")
    assert available_bytes(CPU) == 0
