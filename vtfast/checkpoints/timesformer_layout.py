"""What the upstreams of TimeSformer share: where an attention stands in a block, and positions of another size."""

from collections.abc import Mapping
from math import isqrt

from torch import Tensor, nn

from vtfast.checkpoints.renaming import Rule
from vtfast.layers.position_embedding import resize_places, resize_sequence


def block_rules(
    blocks: str, model: nn.Module, *, time: Mapping[str, str], frame: Mapping[str, str], rest: Mapping[str, str]
) -> list[Rule]:
    """Rules for the entries of a block; what `model` has no attention for keeps its name, and so does not fit.

    Args:
        blocks: pattern of the upstream's name of the list of blocks.
        model: the model to be loaded.
        time: names of the attention over time, each a pattern, and what they are in a step of vtfast.
        frame: likewise of the other attention, that of "divided", "joint" and "space".
        rest: likewise of norm and MLP at the end of a block.
    """
    schemes: tuple[str, ...] = getattr(model, "schemes", ())
    rules: list[Rule] = [(rf"{blocks}\.(\d+)\.{name}", rf"blocks.\1.{own}") for name, own in rest.items()]
    for scheme in schemes:
        names = time if scheme == "time" else frame if scheme in ("space", "joint") else {}
        rules += [(rf"{blocks}\.(\d+)\.{name}", rf"blocks.\1.steps.over_{scheme}.{own}") for name, own in names.items()]
    return rules


def fit_sizes(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Patches of one frame for a patch embedding of clips, and positions resized to those of `model`."""
    fitted = fit_positions(state_dict, model)
    patch = fitted.get("patch_embed.proj.weight")
    if patch is not None and patch.dim() == 4:
        fitted["patch_embed.proj.weight"] = patch.unsqueeze(2)
    return fitted


def fit_positions(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Positions of another number of places or frames, resized as the `position_resize` of `model` has it.

    Models without this option, and positions that cannot be resized, are left as they are.
    """
    fitted = dict(state_dict)
    if not hasattr(model, "position_resize"):
        return fitted
    own = dict(model.named_parameters())
    places, times = fitted.get("pos_embed"), fitted.get("time_embed")
    if places is not None and places.dim() == 3 and places.shape[1] > 1:
        grid: tuple[int, int] = model.places  # type: ignore[assignment]
        fitted["pos_embed"] = _fit_places(places, grid, model.position_resize == "corrected")
    if times is not None and times.dim() == 3 and times.shape[1] > 0 and "time_embed" in own:
        fitted["time_embed"] = resize_sequence(times, own["time_embed"].shape[1])
    return fitted


def _fit_places(
    embedding: Tensor,  # [1, 1 + n, C]
    grid: tuple[int, int],
    corrected: bool,
) -> Tensor:  # [1, 1 + H*W, C], or as it was where the grid of the n places is not known
    wanted, count = grid[0] * grid[1], embedding.shape[1] - 1
    if not corrected or count == wanted:
        return resize_sequence(embedding, wanted, num_prefix=1)
    side = isqrt(count)
    return resize_places(embedding, (side, side), grid) if side * side == count else embedding
