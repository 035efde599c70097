// The CPU's token pooling: raw pointers only. Compiled once per instruction set.
#pragma once

#include "../pool_tokens.h"

namespace vtfast::cpu {

void pool_tokens_forward(const PoolTokensParams& params);

// Elements of accumulation type.
int64_t pool_tokens_workspace_size(const PoolTokensParams& params);

void pool_tokens_backward(const PoolTokensParams& params, const PoolTokensGradients& gradients, void* workspace);

}  // namespace vtfast::cpu
