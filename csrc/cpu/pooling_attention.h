// The CPU's pooling attention: raw pointers only. Compiled once per instruction set.
#pragma once

#include "../pooling_attention.h"

namespace vtfast::cpu {

void pooling_attention_forward(const PoolingAttentionParams& params);

// Elements of accumulation type.
int64_t pooling_attention_workspace_size(const PoolingAttentionParams& params);

void pooling_attention_backward(const PoolingAttentionParams& params, const PoolingAttentionGradients& gradients,
                                void* workspace);

}  // namespace vtfast::cpu
