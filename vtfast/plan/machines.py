"""Machines: what they can do at most, and named GPUs by their data sheets."""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["GPUS", "Machine", "gpu"]

_GIGA, _TERA = 1e9, 1e12


@dataclass(frozen=True)
class Machine:
    """Upper limits of a machine, a GPU's by its data sheet or a CPU's as measured.

    Args:
        name: for people.
        is_gpu: whether its units work side by side, so that the busiest one sets the time; a CPU's cores do one thing
            after the other.
        products: FLOP/s of matrix products, by dtype.
        vector: FLOP/s of multiplications and sums in float32 outside of matrix units.
        exps: exponentials a second.
        copy: bytes/s to and from memory, reads and writes together.
        cache: bytes of the last cache.
        memory: bytes.
        launch: seconds from the end of one operator to the start of the next.
        host: seconds that PyTorch takes to issue an operator, while the GPU works; 0 on a CPU, where it is in `launch`.
        link: bytes/s between GPUs of one machine in each direction, all links of a GPU together; 0 without.
        network: bytes/s of each GPU to other machines; 0 where none is usual.
        reserved: bytes of the memory that the driver, the libraries and their scratch take.
        slack: what the allocator holds beyond what is asked for, as a share of it.
        instruction_set: of the CPU's kernels, or "cuda".
    """

    name: str
    is_gpu: bool
    products: Mapping[str, float]
    vector: float
    exps: float
    copy: float
    cache: float
    memory: float
    launch: float
    host: float = 0.0
    link: float = 0.0
    network: float = 0.0
    reserved: float = 0.0
    slack: float = 0.0
    instruction_set: str = "cuda"

    def held(self, live: float) -> float:
        """Bytes of memory in use when tensors hold `live`."""
        return live * (1.0 + self.slack) + self.reserved

    def __hash__(self) -> int:
        return hash(self.name)


# Context and library handles of a process on a GPU, and the rounding and fragmentation of torch's caching allocator.
_CONTEXT, _FRAGMENTATION = 0.8e9, 0.05

# PyTorch issues an operator, with its autograd, in about 8 us on a server's core; a GPU needs 2 us between two kernels.
# Both are usual figures of profiles, not measured here.
_HOST, _LAUNCH = 8e-6, 2e-6


def _gpu(
    name: str,
    *,
    tensor: float,
    float32: float,
    multiprocessors: int,
    gigahertz: float,
    bandwidth: float,
    cache: float,
    gigabytes: float,
    link: float,
    network: float = 0.0,
) -> Machine:
    """A GPU by its data sheet: TFLOP/s of dense 16-bit products and of float32, GB/s, MB of L2, GB/s of links."""
    products = {"bfloat16": tensor * _TERA, "float16": tensor * _TERA, "float32": float32 * _TERA}
    return Machine(
        name,
        is_gpu=True,
        products=products,
        vector=float32 * _TERA,
        # Special function units: 16 a clock and multiprocessor (CUDA C++ Programming Guide, arithmetic throughput).
        exps=multiprocessors * 16 * gigahertz * _GIGA,
        copy=bandwidth * _GIGA,
        cache=cache * 1e6,
        memory=gigabytes * _GIGA,
        launch=_LAUNCH,
        host=_HOST,
        link=link * _GIGA,
        network=network * _GIGA,
        reserved=_CONTEXT,
        slack=_FRAGMENTATION,
    )


# Peaks without sparsity, float32 without TF32, which vtfast never uses. Clocks are the boost clocks. Network: that of a
# DGX, an InfiniBand adapter for each GPU, 200 Gbit/s with A100 and 400 Gbit/s since (DGX data sheets).
GPUS = {
    machine.name: machine
    for machine in (
        # NVIDIA A100 Tensor Core GPU data sheet, June 2021: 40 GB SXM and 80 GB SXM. NVLink 600 GB/s, both directions.
        _gpu("a100-40gb", tensor=312, float32=19.5, multiprocessors=108, gigahertz=1.41, bandwidth=1555, cache=40,
             gigabytes=40, link=300, network=25),
        _gpu("a100-80gb", tensor=312, float32=19.5, multiprocessors=108, gigahertz=1.41, bandwidth=2039, cache=40,
             gigabytes=80, link=300, network=25),
        # NVIDIA H100 Tensor Core GPU data sheet: SXM5, NVLink 900 GB/s; and PCIe, NVLink bridge 600 GB/s.
        _gpu("h100-sxm", tensor=989.5, float32=67, multiprocessors=132, gigahertz=1.83, bandwidth=3350, cache=50,
             gigabytes=80, link=450, network=50),
        _gpu("h100-pcie", tensor=756, float32=51, multiprocessors=114, gigahertz=1.755, bandwidth=2000, cache=50,
             gigabytes=80, link=300),
        # NVIDIA H200 Tensor Core GPU data sheet: SXM.
        _gpu("h200", tensor=989.5, float32=67, multiprocessors=132, gigahertz=1.83, bandwidth=4800, cache=50,
             gigabytes=141, link=450, network=50),
        # NVIDIA HGX B200 data sheet, one of its eight GPUs; NVLink 1800 GB/s.
        _gpu("b200", tensor=2250, float32=75, multiprocessors=148, gigahertz=1.85, bandwidth=8000, cache=126,
             gigabytes=180, link=900, network=50),
        # NVIDIA L4 data sheet. PCIe 4.0 x16, 64 GB/s.
        _gpu("l4", tensor=121, float32=30.3, multiprocessors=58, gigahertz=2.04, bandwidth=300, cache=48,
             gigabytes=24, link=32),
        # NVIDIA L40S data sheet. PCIe 4.0 x16.
        _gpu("l40s", tensor=362, float32=91.6, multiprocessors=142, gigahertz=2.52, bandwidth=864, cache=96,
             gigabytes=48, link=32),
        # NVIDIA Ada GPU architecture white paper, GeForce RTX 4090, 16-bit products summed in float32. PCIe 4.0 x16.
        _gpu("rtx-4090", tensor=165.2, float32=82.6, multiprocessors=128, gigahertz=2.52, bandwidth=1008, cache=72,
             gigabytes=24, link=32),
    )
}  # fmt: skip


def gpu(name: str) -> Machine:
    """A GPU by name.

    Raises:
        ValueError: none is known by it.
    """
    if name not in GPUS:
        raise ValueError(f"gpu must be one of {', '.join(GPUS)}, got {name!r}")
    return GPUS[name]
