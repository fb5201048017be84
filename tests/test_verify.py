"""What `verify` asks of the trainer that ships: every line of it that is taken away or changed shows in a relation."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from specc.emit import Files
from specc.spec.core import Layout, Model, Pipeline, Spec
from specc.verify import relations
from specc.verify.launch import RankError
from specc.verify.relations import Relation, Setting, layout_relations, plain_relations, setting
from tests.models import gpt2, llama

ONE = Layout(microbatches=2)
DATA = Layout(dp=2)
STAGES = Layout(pp=Pipeline(2), microbatches=2)
SHARDS = Layout(tp=2, sequence_parallel=True)

STEP = {  # of Trainer.step
    "gradients stay": ("        self.optimizer.zero_grad()\n", ""),
    "no gradients": ("value = self.forward_backward(tokens, labels)", "value = self.evaluate(tokens, labels)[0]"),
    "other norm": ("self.clip_gradients(1.0)", "self.clip_gradients(2.0)"),
    "a made up norm": ("norm = self.clip_gradients(1.0)", "norm = torch.tensor(1.0)"),
    "no update": ("        self.optimizer.step()\n", ""),
    "returns changed": ("return value, norm", "return norm, value"),
}
AROUND = {  # of what it calls
    "no guard": ("        self.optimizer.found_inf = (~", "        unused = (~"),
    "guard for NaN alone": ("(norm.isfinite() & (norm > 0))", "norm.isfinite()"),
    "nothing to divide by": ("1 / count.where(count > 0, 1)", "1 / count"),
    "count ignored": ("labels.ne(-100).sum() if count is None else count", "labels.ne(-100).sum()"),
    "a mean of parts": ("part = loss(", "part = 0.5 * loss("),
    "not clipped": ("nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)", "pass"),
    "no decay": ('"weight_decay": 0.1', '"weight_decay": 0.0'),
    "decay of all": ('"weight_decay": 0.0', '"weight_decay": 0.1'),
    "other betas": ("betas=(0.9, 0.95)", "betas=(0.9, 0.999)"),
    "other eps": ("eps=1e-8", "eps=1e-9"),
    "logits cut": ("return self.module(tokens)", "return self.module(tokens)[:, :-1]"),
    "a sum for a count": ("torch.ones_like(count)), count))", "torch.ones_like(count)), count + 1))"),
}  # fmt: skip
RANKS = {
    "labels of one rank": (DATA, 'dist.all_reduce(count, group=self.mesh.get_group("dp"))', "pass"),
    "loss of one rank": (DATA, 'dist.all_reduce(value, group=self.mesh.get_group("dp"))', "pass"),
    "a mean for a sum": (DATA, "scale * ranks", "scale"),
    "loss of one stage": (STAGES, 'dist.all_reduce(value, group=self.mesh.get_group("pp"))', "pass"),
    "gradients stay": (STAGES, "        self.optimizer.zero_grad()\n", ""),
    "norm of one rank": (SHARDS, "    dist.all_reduce(square)\n", ""),
    "logits of one rank": (SHARDS, ".full_tensor()[: shape", ".to_local()[: shape"),
}


@cache
def found(model: Model, layout: Layout) -> Setting:
    return setting(model, layout)


def changed(monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    """Files have `new` in the place of `old`."""
    true_emit = relations.emit

    def wrong(spec: Spec, layout: Layout) -> Files:
        files = true_emit(spec, layout)
        assert old in files.source
        return replace(files, source=files.source.replace(old, new))

    monkeypatch.setattr(relations, "emit", wrong)


def broken(rows: list[Relation]) -> list[str]:
    return [row.name for row in rows if not row.holds]


def test_a_trainer_holds() -> None:
    assert not broken(plain_relations(found(llama(), ONE), ONE))


@pytest.mark.parametrize("change", STEP | AROUND)
def test_a_change_of_the_trainer_shows(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    changed(monkeypatch, *(STEP | AROUND)[change])
    try:
        rows = broken(plain_relations(found(llama(), ONE), ONE))
    except (ValueError, AttributeError) as error:  # a parameter without a gradient
        assert change == "no gradients", error
        return
    assert rows and all(name.startswith("one device: ") for name in rows)


@pytest.mark.parametrize("change", RANKS)
def test_a_change_of_a_trainer_of_ranks_shows(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layout, *texts = RANKS[change]
    changed(monkeypatch, *texts)
    try:
        assert broken(layout_relations(found(llama(layers=2), layout), layout, 60.0))
    except RankError as error:
        assert change == "logits of one rank", error


def test_dropout_is_compared_where_masks_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """One device draws what the interpreter draws, recomputed or not; so do ranks of tp that hold whole values."""
    model, one = gpt2(dropout=0.1), Layout()
    rows = plain_relations(found(model, one), one)
    assert "one device: dropout" in [row.name for row in rows] and not broken(rows)
    changed(monkeypatch, "self.training)", "False)")
    assert broken(plain_relations(found(model, one), one)) == ["one device: dropout"]
