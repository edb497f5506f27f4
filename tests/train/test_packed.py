"""Packed rows are trained as rows by themselves: a step that holds the same rows has the same loss and gradient."""

import pytest

from tests.train.runs import train
from tunesmith.handoff.plan import Epochs
from tunesmith.handoff.prepared import Prepared


@pytest.mark.parametrize("adapter", [{}, None], ids=["adapter", "all weights"])
def test_a_packed_run_learns_what_an_unpacked_one_learns(make_run, adapter):
    curves = {}
    for packing in (False, True):
        run = make_run(
            f"packed-{packing}",
            schedule={"rows_per_step": 11, "tokens_per_pass": 64, "stop": Epochs(epochs=5)},
            optimizer={"decay": "constant", "warmup_steps": 0},
            data={"packing": packing},
            adapter=adapter,
        )
        events = train(run)
        curves[packing] = [(event.loss, event.grad_norm) for event in events if event.kind == "progress"]
        packs = Prepared.read(run / "data.json").packs
        assert (packs is not None) == packing
    assert packs is not None
    assert 1 < packs.packs < 11, "several rows share a sequence, and not all of them one"
    assert curves[True][-1][0] < 0.9 * curves[True][0][0]
    for packed, plain in zip(curves[True], curves[False], strict=True):
        assert packed == pytest.approx(plain, rel=1e-4)
