// The CPU's grid attention: raw pointers only. Compiled once per instruction set.
#pragma once

#include "../grid_attention.h"

namespace vtfast::cpu {

// Elements of accumulation type that the caller provides for results that groups share.
int64_t forward_workspace_size(const GridAttentionParams& params);
int64_t backward_workspace_size(const GridAttentionParams& params, const GridAttentionGradients& gradients);

void grid_attention_forward(const GridAttentionParams& params, void* workspace);
void grid_attention_backward(const GridAttentionParams& params, const GridAttentionGradients& gradients,
                             void* workspace);

}  // namespace vtfast::cpu
