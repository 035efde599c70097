"""The share of a machine's limits that an operator's kernel reaches, by the kind of operator."""

from dataclasses import dataclass

from vtfast.plan.cost import Call
from vtfast.plan.machines import Machine

__all__ = ["KINDS", "Share", "kind_of", "share_of"]

# Kinds of operators, as the reports name them.
KINDS = ("linear layers", "convolution", "attention", "depthwise and pooling", "elementwise and norms", "optimiser")

_PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::_linear_pointwise")
_ATTENTION = ("vtfast::grid_attention", "vtfast::pooling_attention", "aten::_scaled_dot_product_")
_VECTOR = ("vtfast::depthwise_conv3d", "vtfast::pool_tokens", "vtfast::pool_qkv", "vtfast::rotary_embedding")


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
    if call.name.startswith(_VECTOR) or call.vector:
        return "depthwise and pooling"
    if call.name.startswith("aten::convolution"):
        return "convolution"
    return "optimiser" if call.name.startswith("optimizer::") else "elementwise and norms"


def share_of(call: Call, machine: Machine) -> Share:
    """What the kernel of a call reaches on a machine."""
    kind = kind_of(call)
    if kind == "attention":
        direction = "backward" if call.name.endswith("_backward") else "forward"
        table = _GPU_ATTENTION if machine.is_gpu else _CPU_ATTENTION[machine.instruction_set == "amx"]
        precision = "float32" if call.dtype in ("float32", "float64") else "16 bits"
        return table[precision, direction]
    return (_GPU if machine.is_gpu else _CPU)[kind]


# Kernels of vtfast and of oneDNN on CPUs, put against what `torch.mm`, a copy and the kernels' own exponential reach
# there; from the committed results of an AMD EPYC (Zen 4) and an Intel Xeon (Sapphire Rapids).
_CPU = {
    "linear layers": Share(products=1.0),
    "convolution": Share(products=0.6),
    "depthwise and pooling": Share(vector=0.5, copy=0.8),
    "elementwise and norms": Share(exps=0.25, copy=0.55),
    "optimiser": Share(copy=0.8),
}
_CPU_ATTENTION = {
    False: {
        ("float32", "forward"): Share(products=0.95),
        ("float32", "backward"): Share(products=0.95),
        ("16 bits", "forward"): Share(products=0.8),
        ("16 bits", "backward"): Share(products=0.6),
    },
    True: {
        ("float32", "forward"): Share(products=0.7),
        ("float32", "backward"): Share(products=0.62),
        ("16 bits", "forward"): Share(products=0.25),
        ("16 bits", "backward"): Share(products=0.12),
    },
}
_GPU = {
    "linear layers": Share(products=0.7, copy=0.85),
    "convolution": Share(products=0.5, copy=0.85),
    "depthwise and pooling": Share(vector=0.4, copy=0.65),
    "elementwise and norms": Share(exps=0.5, copy=0.8),
    "optimiser": Share(copy=0.7),
}
_GPU_ATTENTION = {
    ("float32", "forward"): Share(products=0.6, exps=0.5, copy=0.7),
    ("float32", "backward"): Share(products=0.5, exps=0.5, copy=0.7),
    ("16 bits", "forward"): Share(products=0.4, exps=0.4, copy=0.7),
    ("16 bits", "backward"): Share(products=0.3, exps=0.4, copy=0.6),
}
