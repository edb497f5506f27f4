"""What would make a GPU wait, shown without one: on the meta device, which has shapes and no numbers to be read."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tunesmith.data.store import Rows
from tunesmith.handoff.plan import Plan
from tunesmith.handoff.prepared import Prepared
from tunesmith.model.attention import attend_by_rows
from tunesmith.model.head import Head, hidden_states
from tunesmith.model.load import load_model
from tunesmith.train import losses
from tunesmith.train.batches import Layout
from tunesmith.train.losses import summed_cross_entropy
from tunesmith.train.memory import peak_bytes
from tunesmith.train.optim import Optimizer
from tunesmith.train.step import differentiate
from tunesmith.train.student import student_of

CPU, META = torch.device("cpu"), torch.device("meta")


class Watched(TorchDispatchMode):
    """Counts what is copied to the device, and what of it is waited for; and products by their last size."""

    def __init__(self) -> None:
        super().__init__()
        self.copied = self.waited = 0
        self.products: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and args[0].device == CPU and kwargs.get("device") == META:
            self.copied += 1
            self.waited += not kwargs.get("non_blocking", False)
        made = func(*args, **kwargs)
        if func is torch.ops.aten.mm.default:
            self.products.append(made.shape[-1])
        return made


@pytest.mark.parametrize("recompute", ["no", "layers"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_flat_pass_is_learned_from_without_a_look_at_its_numbers(recompute, whole, make_run):
    run = make_run(schedule={"rows_per_step": 4, "tokens_per_pass": 100})
    given, rows = Plan.read(run / "plan.json"), Rows(run, Prepared.read(run / "data.json").training)
    model = load_model(run / "inputs/model", "bf16", "sdpa", CPU)
    attend_by_rows(model, "sdpa")
    given = given.model_copy(
        update={
            "adapter": None if whole else given.adapter,
            "model": given.model.model_copy(update={"recompute": recompute}),
        }
    )
    student = student_of(model, given)
    model.to(META)
    head = Head.of(model)

    def loss(part):
        hidden_BTH = hidden_states(model, part.ids_BT, part.bounds)
        return summed_cross_entropy(hidden_BTH.flatten(0, 1)[part.places_N], part.targets_N, head)

    method = SimpleNamespace(student=student, loss=loss, optimizer=Optimizer(student.parameters(), given.optimizer, 9))
    student.learn(True)
    layout = Layout(tokens_per_pass=100, device=META, flat=True)
    with Watched() as watched:
        for (part,) in layout.passes(rows, range(8)):
            found, gradient = differentiate(method, 1, 1.0, part)
            assert found.device == META
            if gradient:
                assert all(each.is_contiguous() for each in gradient), "or torch adds them one by one"
                method.optimizer.add(gradient)
    assert watched.copied >= 3, "ids, places and targets"
    assert watched.waited == 0


def test_the_heads_weight_is_read_seldom_and_the_logits_stay_few():
    vocabulary, hidden, tokens = 128_256, 64, 4096
    weight = torch.empty(vocabulary, hidden, dtype=torch.bfloat16, device=META)
    x = torch.empty(tokens, hidden, dtype=torch.bfloat16, device=META, requires_grad=True)
    targets = torch.empty(tokens, dtype=torch.long, device=META)

    def work():
        summed_cross_entropy(x, targets, Head(weight, None, 1.0, 0.0)).backward()

    with Watched() as watched:
        work()
    chunks = watched.products.count(vocabulary)
    assert tokens / chunks >= 512, "so many operations for each number of the weight that the memory keeps up"
    assert peak_bytes(work) < 2.5 * losses.GPU_CHUNK_BYTES
