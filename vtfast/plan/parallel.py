"""What data parallelism adds to a training step: the all-reduce of the gradients."""

from dataclasses import dataclass

from vtfast.plan.machines import Machine

__all__ = ["GPUS_A_NODE", "AllReduce", "all_reduce"]

GPUS_A_NODE = 8

# Of the links' bandwidth that a ring of large messages reaches, and the time of one of its steps: usual figures of
# NCCL, not measured here.
_LINK_SHARE = 0.8
_HOP = 5e-6

# Gradients are sent while the backward goes on, but for the last bucket of DistributedDataParallel (its default size).
_BUCKET = 25 * 2**20


@dataclass(frozen=True)
class AllReduce:
    """Time that the gradients take.

    Args:
        seconds: of all of them.
        exposed: that the backward does not hide.
    """

    seconds: float
    exposed: float


def all_reduce(gradient_bytes: float, backward_seconds: float, gpus: int, machine: Machine) -> AllReduce:
    """A ring over all GPUs, each of which sends and receives 2 (n - 1) / n of the gradients.

    Within a machine the links carry it, beyond that the network of each GPU.

    Raises:
        ValueError: the GPUs are more than a machine has and no network is known for them.
    """
    if gpus == 1:
        return AllReduce(0.0, 0.0)
    bandwidth = machine.link
    if gpus > GPUS_A_NODE:
        if not machine.network:
            raise ValueError(f"gpus must be at most {GPUS_A_NODE} for {machine.name}, got {gpus}")
        bandwidth = min(bandwidth, machine.network)
    per_byte = 2 * (gpus - 1) / gpus / (bandwidth * _LINK_SHARE)
    latency = 2 * (gpus - 1) * _HOP
    seconds = gradient_bytes * per_byte + latency
    last = min(gradient_bytes, _BUCKET) * per_byte + latency
    return AllReduce(seconds, max(seconds - backward_seconds, last))
