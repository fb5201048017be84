"""Patches are a convolution; what a trainer of images refuses; vectors that stand in front of patches."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from specc.cost.decided import decided
from specc.interpret import interpret
from specc.kernels.batches import filled_of
from specc.lower import lower
from specc.passes import typed
from specc.source import Source, render
from specc.spec import Spec, load
from specc.spec.core import Layout, Pipeline
from specc.verify.run import in_double
from tests.files import source_of
from tests.test_parity_file import built

BODY = "layers: 2, block: [{attention: {heads: 2}}, {ffn: {hidden: 8}}]"
TEXT = """\
specc: 1
name: seen
d_model: 16
embedding: {{{embedding}stem: {{kind: patches, channels: 2, image: 6, patch: 2}}}}
head: {head}
encoder: {{{body}}}
"""


FRAMES = "kind: frames, channels: 2, convs: [{width: 5}, {width: 3, stride: 4}], activation: relu"
SIZED = "positions: {kind: learned, size: 7}, "


def said(embedding: str = "", head: str = "none", body: str = BODY) -> Spec:
    found = load(Source("s.yaml", TEXT.format(embedding=embedding, head=head, body=body)))
    assert isinstance(found, Spec), [render(item) for item in found]
    return found


def images() -> Tensor:
    return torch.randn(3, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def both(spec: Spec) -> list[torch.nn.Module]:
    """The interpreter and a file, with the same weights."""
    made = interpret(typed(lower(spec.model)), dtype=torch.float64).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad(), in_double():
        for p in made.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
        file = built(source_of(spec.model, Layout())).eval()
    file.load_state_dict(made.state_dict())
    return [made, file]


def test_patches_are_a_convolution_and_vectors_stand_in_front_of_them() -> None:
    """In order: the class token, positions, registers behind it; without layers that change what is there."""
    still = "layers: 1, block: [{ffn: {hidden: 8}, out_scale: 0}], final_norm: false"
    for module in both(said("class_token: true, registers: 2, positions: learned, ", body=still)):
        w = dict(module.named_parameters())
        x = F.conv2d(images(), w["stem.weight"].view(16, 2, 2, 2), w["stem.bias"], stride=2).flatten(2).mT
        x = torch.cat((w["class_embedding.weight"].expand(3, 1, 16), x), 1) + w["position_embedding.weight"]
        x = torch.cat((x[:, :1], w["register_embedding.weight"].expand(3, 2, 16), x[:, 1:]), 1)
        assert w["position_embedding.weight"].shape == (10, 16)
        assert (module(images()) - x).abs().max() <= 1e-12


def test_frames_are_convolved_along_time() -> None:
    """As many as make the tokens that positions are of; in the end time is the tokens."""
    still = "layers: 1, block: [{ffn: {hidden: 8}, out_scale: 0}], final_norm: false"
    text = TEXT.replace("kind: patches, channels: 2, image: 6, patch: 2", FRAMES.replace("{", "{{").replace("}", "}}"))
    found = load(Source("s.yaml", text.format(embedding=SIZED, head="none", body=still)))
    assert isinstance(found, Spec), [render(item) for item in found]
    frames = torch.randn(3, 2, 28, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for module in both(found):
        w = dict(module.named_parameters())
        x = F.relu(F.conv1d(frames, w["conv1.weight"], w["conv1.bias"], padding=2))
        x = F.relu(F.conv1d(x, w["conv2.weight"], w["conv2.bias"], stride=4, padding=1)).mT
        assert w["position_embedding.weight"].shape == (7, 16) and w["conv1.weight"].shape == (16, 2, 5)
        assert (module(frames) - x - w["position_embedding.weight"]).abs().max() <= 1e-12


def test_places_of_layers_count_what_stands_in_front() -> None:
    """A rope turns registers, too: 12 places, while a table has 9 rows."""
    turning = BODY.replace("heads: 2", "heads: 2, rope: {theta: 100}")
    for module in both(said("registers: 3, positions: learned, ", body=turning)):
        assert module(images()).shape == (3, 12, 16)


def test_the_longest_sequence_is_what_the_stem_makes() -> None:
    spec = said("class_token: true, registers: 2, ")
    assert spec.model.max_seq == 12 and spec.model.vocab == 0
    rows = {row.key: (row.value, row.origin) for row in decided(spec, spec.layout(), ())}
    assert rows["max_seq"] == ("12", "default: what the stem makes") and rows["vocab"][0] == "none"


@pytest.mark.parametrize(("registers", "fine"), [(0, False), (1, True), (2, False), (3, True)])
def test_ranks_share_tokens_evenly_or_the_layout_is_refused(registers: int, fine: bool) -> None:
    text = TEXT.format(embedding=f"registers: {registers}, ", head="none", body=BODY)
    found = load(Source("s.yaml", f"{text}layout: {{tp: 2, sequence_parallel: true}}\n"))
    assert isinstance(found, Spec) == fine
    if not isinstance(found, Spec):
        (item,) = found
        assert item.message == f"{9 + registers} tokens that a stem makes cannot be cut into equal parts for tp = 2"
        assert item.help is not None and item.help.endswith(f"1 register more would make {10 + registers} tokens")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_images_are_cast_where_the_stream_begins(precision: str) -> None:
    spec = said(head="{kind: classes, classes: 3, pool: mean}")
    layout = Layout(precision="bf16" if precision == "bf16" else "fp32")
    source = source_of(spec.model, layout)
    assert (".transpose(1, 2).to(COMPUTE)" in source) == (precision == "bf16")


def test_a_pipeline_feeds_its_first_stage_alone() -> None:
    spec = said(head="{kind: classes, classes: 3, pool: mean}")
    source = source_of(spec.model, Layout(pp=Pipeline(2), microbatches=2))
    assert "inputs = (images,) if self.index == 0 else ()" in source
    assert "images = torch.empty(batch, 2, 6, 6, dtype=REDUCE)" in source


def test_batches_of_images_are_filled_up_by_images_alone() -> None:
    sizes, blanks = {"images": (3, 2, 4, 4), "labels": (3,)}, ((None, 0.0), (-100, -100))
    x, labels = torch.randn(2, 2, 4, 4), torch.tensor([1, 2])
    found = filled_of({"images": x, "labels": labels}, sizes, blanks, 1)
    assert torch.equal(found[0][:2], x) and not found[0][2].any() and found[1].tolist() == [1, 2, -100]
    for wrong in (x[:, :1], x[:, :, :2], x[..., :2], x.long(), x[0]):
        with pytest.raises(ValueError, match="are given"):
            filled_of({"images": wrong, "labels": labels[: len(wrong)]}, sizes, blanks, 1)


@pytest.mark.parametrize(("head", "missing"), [("lm", True), ("none", False)])
def test_vocab_is_needed_where_tokens_are_read_or_predicted(head: str, missing: bool) -> None:
    plain = f"specc: 1\nname: read\nd_model: 16\nencoder: {{{BODY}}}\n"
    for text, told in ((plain, True), (TEXT.format(embedding="", head=f"{{kind: {head}}}", body=BODY), missing)):
        if head == "none":
            text = text.replace("{kind: none}", "none")
        found = load(Source("s.yaml", text))
        if told:
            assert not isinstance(found, Spec) and [item.code for item in found] == ["E202"], found
            assert found[0].message == "the key vocab is missing"
        else:
            assert isinstance(found, Spec)


def test_a_stage_sends_frames_in_order() -> None:
    """What time was turned into lies in memory as its axes say, or gloo and NCCL refuse it."""
    text = TEXT.replace("kind: patches, channels: 2, image: 6, patch: 2", FRAMES.replace("{", "{{").replace("}", "}}"))
    found = load(Source("s.yaml", text.format(embedding=SIZED, head="none", body=f"{BODY}, final_norm: false")))
    assert isinstance(found, Spec)
    for module in both(found):
        assert module(torch.randn(3, 2, 28, dtype=torch.float64)).is_contiguous()
