"""What the attention steps of a model attend to, recorded while it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from vtfast.layers import DividedAttention
from vtfast.reference import AttentionWeights

__all__ = ["AttentionStep", "record_attention"]


@dataclass(frozen=True)
class AttentionStep:
    """The attention of one step of a block.

    Args:
        block: number of the block.
        scheme: which tokens attend to each other, see `vtfast.ops.divided_attention`.
        weights: how much they do.
    """

    block: int
    scheme: str
    weights: AttentionWeights


@contextmanager
def record_attention(model: nn.Module, *, mean_heads: bool = False) -> Iterator[list[AttentionStep]]:
    """Notes the attention of every step that `model` runs inside the block, in the order of the run.

    The weights come from the reference, next to the computation proper, whose results stay bit by bit the same; they
    are differentiable. They are materialised: [frames, heads, places, places] of each "space" step, for instance.
    Activation checkpointing is off inside the block, because what is recorded stays in memory anyway.

    Args:
        model: with blocks of `DividedAttention`: a TimeSformer.
        mean_heads: keep only the mean over the heads, for a small part of the memory.

    Raises:
        ValueError: the model has no such attention.
    """
    blocks = getattr(model, "blocks", ())
    layers = [(i, layer) for i, block in enumerate(blocks) for layer in block.modules() if _is_attention(layer)]
    if not layers:
        raise ValueError(
            f"model must have blocks of divided attention, as a TimeSformer has, got {type(model).__name__}"
        )
    steps: list[AttentionStep] = []

    def recorder(block: int) -> Any:
        def record(layer: DividedAttention, args: tuple[Any, ...], kwargs: dict[str, Any], _: Any) -> None:
            inputs = {name: value for name, value in kwargs.items() if name != "residual"}
            weights = layer.attention_weights(*args, **inputs)
            steps.append(AttentionStep(block, layer.scheme, weights.mean_heads() if mean_heads else weights))

        return record

    handles = [layer.register_forward_hook(recorder(block), with_kwargs=True) for block, layer in layers]
    checkpointing = model.grad_checkpointing
    model.grad_checkpointing = False  # type: ignore[assignment]
    try:
        yield steps
    finally:
        model.grad_checkpointing = checkpointing
        for handle in handles:
            handle.remove()


def _is_attention(module: nn.Module) -> bool:
    return isinstance(module, DividedAttention)
