"""An independent check of tensor parallelism: the files type-check under `spmd_types`, and broken ones do not."""

from __future__ import annotations

import pytest
from spmd_types import SpmdTypeError

from specc.spec.core import Layout
from specc.verify.run import load_file
from tests import zoo
from tests.files import file_of, source_of
from tests.models import SMALL
from tests.spmd import check
from tests.spmd_mutants import mutants

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # it calls deprecated collectives


@pytest.mark.parametrize("checkpoint", zoo.CHECKPOINTS)
@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("name", zoo.TINY)
def test_files_type_check(name: str, sequence_parallel: bool, checkpoint: str) -> None:
    layout = zoo.layout(2, sequence_parallel, 1, "1f1b", checkpoint)
    model = zoo.model(name, layout)
    check(model, layout, file_of(model, layout))


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("name", zoo.TINY)
def test_stages_type_check(name: str, sequence_parallel: bool) -> None:
    layout = zoo.layout(2, sequence_parallel, 4, "1f1b", "full")
    model = zoo.model(name, layout)
    check(model, layout, file_of(model, layout))


@pytest.mark.parametrize("sequence_parallel", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_a_wrong_collective_or_gradient_is_rejected(name: str, sequence_parallel: bool) -> None:
    """By its types, or by its shapes where a value that should be split is not."""
    layout = Layout(tp=2, sequence_parallel=sequence_parallel)
    survivors: list[str] = []
    by_type = by_shape = 0
    for mutant in mutants(source_of(SMALL[name], layout)):
        try:
            check(SMALL[name], layout, load_file(mutant.source, "mutant"))
        except SpmdTypeError:
            by_type += 1
        except RuntimeError as error:
            assert "size of tensor" in str(error), mutant.label
            by_shape += 1
        except AssertionError as error:  # of samples, which are an odd number
            assert "must be a multiple of" in str(error), mutant.label
            by_shape += 1
        else:
            survivors.append(mutant.label)
    assert not survivors
    assert by_type > 20 and by_shape < by_type / 3


TP, SP = Layout(tp=2), Layout(tp=2, sequence_parallel=True)
BY_HAND = [
    ("gpt2", TP, "with own_random(self.tp):", "if True:"),  # the same attention weights dropped on every rank
    ("gpt2", SP, "with own_random(tp):", "if True:"),
    ("gpt2", TP, "all_reduce(self.down(x), self.tp) + self.down.bias.to_local()",
     "all_reduce(self.down(x) + self.down.bias.to_local(), self.tp)"),
    ("llama", TP, "q = apply_rope(q, rope)", "q = apply_rope(copy_to_shards(q, self.tp), rope)"),
    ("llama", SP, "reduce_scatter(x, self.tp)", "reduce_scatter(x.relu(), self.tp)"),
    ("llama", TP, "all_reduce(x, self.tp)", "all_reduce(x + 1.0, self.tp)"),
    ("transformer", TP, "self.k(memory)", "self.k(x)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "layout", "old", "new"), BY_HAND)
def test_other_mistakes_are_rejected(name: str, layout: Layout, old: str, new: str) -> None:
    source = source_of(SMALL[name], layout)
    assert old in source
    with pytest.raises(SpmdTypeError):
        check(SMALL[name], layout, load_file(source.replace(old, new), "mutant"))
