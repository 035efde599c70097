// Parameters of token pooling, shared by every backend. See vtfast/ops/pool_tokens.py for the semantics.
#pragma once

#include <cstdint>

#include "data_type.h"
#include "geometry.h"
#include "token_rows.h"

namespace vtfast {

// kNone leaves the tokens as they are: a part of q, k, v that is not pooled.
enum class PoolMode : int { kConvolution, kAverage, kMaximum, kNone };

// B batch, P prefix tokens, N = T*H*W grid tokens, N' those after pooling, C = num_heads * head_dim channels, K taps of
// the window. "acc" is float, or double for float64 data.
struct PoolTokensParams {
  PoolAxis t, h, w;
  int64_t batch;
  int64_t num_prefix;
  int64_t num_heads;
  int64_t head_dim;
  double eps;
  PoolMode mode;
  DataType data_type;

  TokenRows x;              // [B, P + N, C]
  const void* weight;       // acc [head_dim, K], t slowest; null unless it is a convolution
  const void* norm_weight;  // acc [head_dim], or null for no norm
  const void* norm_bias;    // acc [head_dim], or null
  void* out;                // [B, P + N', C]; forward only

  int64_t channels() const { return num_heads * head_dim; }
  int64_t num_taps() const { return t.kernel * h.kernel * w.kernel; }
  int64_t num_inputs() const { return t.size * h.size * w.size; }
  int64_t num_outputs() const { return t.pooled * h.pooled * w.pooled; }
};

struct PoolTokensGradients {
  const void* grad_out;  // [B, P + N', C]
  MutableTokenRows d_x;  // [B, P + N, C]
  void* d_weight;        // acc [head_dim, K], or null
  void* d_norm_weight;   // acc [head_dim], or null
  void* d_norm_bias;     // acc [head_dim], or null
};

}  // namespace vtfast
