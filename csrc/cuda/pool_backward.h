// The stages of a backward of token pooling, as they hand their results to one another.
#pragma once

#include "pool_plan.h"

namespace vtfast::cuda {

struct PoolBackward {
  const PoolTokensParams& p;
  const PoolTokensGradients& gradients;
  const PoolWorkspace layout;
  float* workspace;
  void* stream;

  int64_t element_size() const { return p.data_type == DataType::kFloat32 ? 4 : 2; }

  TokenBytes tokens() const { return tokens_from(p.x, p.num_prefix, element_size()); }

  // Of what was pooled, [B, N', C] in float.
  MutableTokenBytes window_gradients() const {
    const int64_t stride = p.channels() * static_cast<int64_t>(sizeof(float));
    return {workspace + layout.gradients, p.num_outputs() * stride, stride};
  }

  uint16_t* winners() const {
    return p.mode == PoolMode::kMaximum ? reinterpret_cast<uint16_t*>(workspace + layout.winners) : nullptr;
  }
};

// Leaves the gradients of windows and, of maxima, the winners; the gradients of the prefix are done. Returns how many
// partial sums there are for those of the norm.
int64_t differentiate_windows(const PoolBackward& backward);

// From there to the gradient of the tokens.
void differentiate_tokens(const PoolBackward& backward);

// And to partial sums for that of the weights; returns how many.
int64_t differentiate_weights(const PoolBackward& backward);

void add_partials(const PoolBackward& backward, int64_t of_norm, int64_t of_weights);

}  // namespace vtfast::cuda
