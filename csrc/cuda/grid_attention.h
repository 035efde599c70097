// The GPU's grid attention, as the host sees it: raw pointers only, no CUDA header.
#pragma once

#include "../grid_attention.h"
#include "launch_plan.h"

namespace vtfast::cuda {

// Floats of device memory that the caller provides for what thread blocks hand to one another.
int64_t forward_workspace_size(const GridAttentionParams& params, const Device& device);
int64_t backward_workspace_size(const GridAttentionParams& params, const GridAttentionGradients& gradients,
                                const Device& device);

// Launch on `stream` (a cudaStream_t) of the current device and return without waiting. qkv, pad_qkv, grad_out and
// what is written must be 16-byte aligned; unsupported() must be null.
void grid_attention_forward(const GridAttentionParams& params, const Device& device, void* workspace, void* stream);
void grid_attention_backward(const GridAttentionParams& params, const GridAttentionGradients& gradients,
                             const Device& device, void* workspace, void* stream);

}  // namespace vtfast::cuda
