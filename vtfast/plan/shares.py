"""The share of a machine's limits that an operator's kernel reaches, by the kind of operator."""

from dataclasses import dataclass

from vtfast.plan.cost import Call
from vtfast.plan.machines import Machine

__all__ = ["KINDS", "Share", "kind_of", "share_of"]

# Kinds of operators, as the reports name them.
KINDS = ("linear layers", "convolution", "attention", "depthwise", "pooling", "elementwise and norms", "optimiser")

_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise")
_ATTENTION = ("vtfast::grid_attention", "vtfast::pooling_attention", "aten::_scaled_dot_product_")
_POOLING = ("vtfast::pool_tokens", "vtfast::pool_qkv")


@dataclass(frozen=True)
class Share:
    """Of a machine's limits.

    Args:
        products: of the rate of matrix products in the operator's dtype.
        vector: of the rate of vector arithmetic.
        exps: of the rate of exponentials.
        copy: of the bandwidth.
    """

    products: float = 1.0
    vector: float = 1.0
    exps: float = 1.0
    copy: float = 1.0


def kind_of(call: Call) -> str:
    """One of `KINDS`."""
    if call.name.startswith(_PRODUCTS):
        return "linear layers"
    if call.name.startswith(_ATTENTION):
        return "attention"
    if call.name.startswith(_POOLING):
        return "pooling"
    if call.vector:
        return "depthwise"
    if call.name.startswith("aten::convolution"):
        return "convolution"
    return "optimiser" if call.name.startswith("optimizer::") else "elementwise and norms"


def share_of(call: Call, machine: Machine) -> Share:
    """What the kernel of a call reaches on a machine."""
    kind = kind_of(call)
    precision = "float32" if call.dtype in ("float32", "float64") else "16 bits"
    if kind == "attention":
        direction = "backward" if call.name.endswith("_backward") else "forward"
        table = _GPU_ATTENTION if machine.is_gpu else _CPU_ATTENTION[machine.instruction_set == "amx"]
        return table[precision, direction]
    if kind == "linear layers":
        return (_GPU_LINEAR if machine.is_gpu else _CPU_LINEAR[machine.instruction_set == "amx"])[precision]
    return (_GPU if machine.is_gpu else _CPU)[kind]


# On CPUs: put against what `torch.mm` of 2048 x 2048, a copy and the kernels' own exponential reach on the machine.
# From the committed results of an AMD EPYC (Zen 4) and an Intel Xeon with matrix tiles (AMX).

# oneDNN's products of models are as fast as the square one; in bfloat16 those with few channels are not quite. By
# whether there are matrix tiles, as everything that follows by True and False.
_CPU_LINEAR = {
    False: {"float32": Share(products=1.0), "16 bits": Share(products=0.93)},
    True: {"float32": Share(products=1.0), "16 bits": Share(products=0.8)},
}
# Zen 4 has spare ports beside its multiplications, which softmax takes; on Intel both share them. Keys and values of a
# group are packed before its products and results lie in pages that are touched for the first time, which is what the
# share of the copy is about: all that counts where groups are short. Matrix tiles wait for softmax, which AVX-512 does.
_CPU_ATTENTION = {
    False: {
        ("float32", "forward"): Share(products=1.0, copy=0.4),
        ("float32", "backward"): Share(products=0.95, copy=0.45),
        ("16 bits", "forward"): Share(products=0.75, copy=0.25),
        ("16 bits", "backward"): Share(products=0.6, copy=0.25),
    },
    True: {
        ("float32", "forward"): Share(products=0.85, exps=0.5, copy=0.6),
        ("float32", "backward"): Share(products=0.66, exps=0.5, copy=0.6),
        ("16 bits", "forward"): Share(products=0.5, exps=0.5, copy=0.4),
        ("16 bits", "backward"): Share(products=0.14, exps=0.5, copy=0.4),
    },
}
_CPU = {
    "convolution": Share(products=0.6),
    # In registers, tap after tap: as fast as a GEMM, which has no other units either.
    "depthwise": Share(vector=0.9, copy=0.7),
    # The norm over a head's channels waits for all of them, and 96 channels are few for a loop over taps.
    "pooling": Share(vector=0.15, copy=0.4),
    # Norms read twice, results lie in pages that are touched for the first time, and torch's exponential is not ours.
    "elementwise and norms": Share(exps=0.25, copy=0.55),
    "optimiser": Share(copy=0.8),
}

# On GPUs: put against data sheets. Nothing here is measured by vtfast. Products: large ones of cuBLAS reach 70 to 80 %
# of the peak. Attention: what the kernels were designed for, 40 % of the exponential units and 70 % of the bandwidth in
# the forward (several groups share a tile where groups are short), somewhat less in the backward, whose five products
# share registers with two rounds of scores. Elementwise kernels and copies reach 80 to 90 % of the bandwidth.
_GPU_LINEAR = {"float32": Share(products=0.8, copy=0.85), "16 bits": Share(products=0.7, copy=0.85)}
_GPU_ATTENTION = {
    ("float32", "forward"): Share(products=0.5, exps=0.4, copy=0.7),
    ("float32", "backward"): Share(products=0.45, exps=0.4, copy=0.6),
    ("16 bits", "forward"): Share(products=0.4, exps=0.4, copy=0.7),
    ("16 bits", "backward"): Share(products=0.25, exps=0.4, copy=0.6),
}
_GPU = {
    "convolution": Share(products=0.5, copy=0.8),
    "depthwise": Share(vector=0.4, copy=0.65),
    "pooling": Share(vector=0.3, copy=0.6),
    "elementwise and norms": Share(exps=0.5, copy=0.8),
    "optimiser": Share(copy=0.8),
}
