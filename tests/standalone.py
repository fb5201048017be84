"""Builds every stage of generated files on the meta device. Run alone: `python -I standalone.py`, a JSON list of
[path, ranks, pipeline stages] on standard input; the answer is a JSON object by path. It must not import specc.
"""

from __future__ import annotations

import inspect
import json
import sys
from types import ModuleType
from typing import Any

BATCH, LENGTH = 2, 64


def load(path: str) -> ModuleType:
    module = ModuleType("generated")
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec", dont_inherit=True), module.__dict__)
    module.__dict__["init_weights"] = lambda *_: None  # there is nothing to draw into
    return module


def described(module: Any) -> dict[str, Any]:
    """Names and full shapes of parameters and buffers, none of which takes memory."""
    found = {name: list(p.shape) for name, p in (*module.named_parameters(), *module.named_buffers())}
    local = [p.to_local() if hasattr(p, "to_local") else p for p in module.parameters()]
    assert all(p.device.type == "meta" for p in local)
    return {"parameters": found, "local": sum(p.numel() for p in local)}


def build(path: str, ranks: int, stages: int) -> list[dict[str, Any]]:
    import torch
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    file, meta = load(path), torch.device("meta")
    if ranks == 1:
        model = file.build_model(meta, 0)
        inputs = [torch.zeros(BATCH, LENGTH, dtype=torch.int64, device=meta)]
        return [described(model) | {"logits": list(model(*inputs).shape)}]
    answer: list[dict[str, Any]] = []
    for stage in range(stages):
        dist.init_process_group("fake", store=FakeStore(), rank=stage * ranks // stages, world_size=ranks)
        mesh = file.device_mesh("cpu")
        if stages == 1:
            answer.append(described(file.build_model(mesh, meta, 0)))
        else:
            lengths = [LENGTH] * (len(inspect.signature(file.build_stage).parameters) - 5)
            answer.append(described(file.build_stage(stage, mesh, meta, BATCH, *lengths, 0).submod))
        dist.destroy_process_group()
    return answer


if __name__ == "__main__":
    answers = {path: build(path, ranks, stages) for path, ranks, stages in json.load(sys.stdin)}
    assert "specc" not in sys.modules
    json.dump(answers, sys.stdout)
