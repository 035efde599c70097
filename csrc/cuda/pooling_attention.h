// The GPU's pooling attention, as the host sees it: raw pointers only, no CUDA header.
#pragma once

#include "../pooling_attention.h"
#include "pooling_plan.h"

namespace vtfast::cuda {

// Floats of device memory that the caller provides for what kernels hand to one another.
int64_t forward_workspace_size(const PoolingAttentionParams& params, const Device& device);
int64_t backward_workspace_size(const PoolingAttentionParams& params, const Device& device);

// Launch on `stream` (a cudaStream_t) of the current device and return without waiting. All tensors, and every token of
// q, k and v, must be 16-byte aligned; unsupported() must be null.
void pooling_attention_forward(const PoolingAttentionParams& params, const Device& device, void* workspace,
                               void* stream);
void pooling_attention_backward(const PoolingAttentionParams& params, const PoolingAttentionGradients& gradients,
                                const Device& device, void* workspace, void* stream);

}  // namespace vtfast::cuda
