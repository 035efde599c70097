// The GPU's token pooling, as the host sees it: raw pointers only, no CUDA header. Launches are on `stream` (a
// cudaStream_t) of the current device and return without waiting. All tensors and all their tokens must be 16-byte
// aligned; unsupported() must be null.
#pragma once

#include "../pool_tokens.h"

namespace vtfast::cuda {

// Why the kernels cannot compute this, or null.
const char* unsupported(const PoolTokensParams& params);

void pool_tokens_forward(const PoolTokensParams& params, void* stream);

// In floats.
int64_t pool_tokens_workspace_size(const PoolTokensParams& params);

void pool_tokens_backward(const PoolTokensParams& params, const PoolTokensGradients& gradients, void* workspace,
                          void* stream);

}  // namespace vtfast::cuda
