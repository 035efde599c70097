"""One optimizer step of a small Video Swin in one of several processes, which must be that of a single one."""

import torch
import torch.distributed as dist
from oracles import small_swin
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

CLIPS = torch.randn(4, 3, 6, 40, 52, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([1, 0, 6, 3])


def step(rank: int = 0, world_size: int = 1, rendezvous: str = "") -> dict[str, Tensor]:
    """The weights after a step on this process' share of the batch; `rank` of `world_size` over gloo."""
    model = small_swin(drop_path_rate=0.0).train()
    wrapped: torch.nn.Module = model
    if rendezvous:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
        wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    share = slice(rank, None, world_size)
    torch.nn.functional.cross_entropy(wrapped(CLIPS[share]), TARGETS[share]).backward()
    optimizer.step()
    if rendezvous:
        dist.destroy_process_group()
    return model.state_dict()


def run(rank: int, world_size: int, rendezvous: str) -> None:
    """Entry of a spawned process: the first one leaves its weights beside the rendezvous file."""
    torch.set_num_threads(1)
    weights = step(rank, world_size, rendezvous)
    torch.save(weights, f"{rendezvous}.{rank}.pth")
