"""What does not run again in a checkpointed call: `checkpoint(f, x, use_reentrant=False, context_fn=keep_core)`.

torch (2.13) takes attention kernels for random: compiled on a CPU, one that runs again loses the mesh among what is
saved for backward. So compiled they are kept in any case.
"""

from contextlib import AbstractContextManager
from functools import partial

import torch
from torch.fx.traceback import annotate, get_current_meta
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts


def kernels(ctx, op, *args, **kwargs) -> CheckpointPolicy:
    """Attention kernels, of any device, do not run again."""
    return CheckpointPolicy.MUST_SAVE if "scaled_dot_product" in str(op) else CheckpointPolicy.PREFER_RECOMPUTE


keep_core = partial(create_selective_checkpoint_contexts, kernels)


def again(ctx, op, *args, **kwargs) -> CheckpointPolicy:
    """All runs again but compiled attention kernels, with which torch would lose the mesh of saved weights."""
    stays = torch.compiler.is_compiling() and "scaled_dot_product" in str(op)
    return CheckpointPolicy.MUST_SAVE if stays else CheckpointPolicy.PREFER_RECOMPUTE


keep_nothing = partial(create_selective_checkpoint_contexts, again)


def kept(name: str) -> AbstractContextManager:
    """A label: results made under it do not run again where `keep_named` is given; of attention, the kernel's."""
    return annotate({"kept": name})


def named(ctx, op, *args, **kwargs) -> CheckpointPolicy:
    """What is made under a label does not run again, casts of weights apart; nor do compiled attention kernels."""
    name, kernel = get_current_meta().get("custom", {}).get("kept", ""), "scaled_dot_product" in str(op)
    made = kernel if name.endswith(".core") else bool(name) and not op.is_view and "_to_copy" not in str(op)
    stays = made or (kernel and torch.compiler.is_compiling())
    return CheckpointPolicy.MUST_SAVE if stays else CheckpointPolicy.PREFER_RECOMPUTE


keep_named = partial(create_selective_checkpoint_contexts, named)
