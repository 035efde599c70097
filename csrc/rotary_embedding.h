// Parameters of rotary embedding, shared by every backend. See vtfast/ops/rotary_embedding.py for the semantics.
#pragma once

#include <cstdint>

#include "data_type.h"

namespace vtfast {

// B batch, P prefix tokens, N = T*H*W grid tokens, C = num_heads * head_dim, R channels of a head that turn.
// "acc" is float, or double for float64 data.
struct RotaryEmbeddingParams {
  int64_t batch;
  int64_t num_prefix;
  int64_t grid[3];
  int64_t num_heads;
  int64_t head_dim;
  int64_t rotated;          // R
  int64_t table_stride[3];  // elements of a table from one position to the next along each axis of the grid
  bool transpose;           // whether each pair of channels is multiplied by its transposed matrix
  DataType data_type;

  const void* qkv;  // [B, P + N, 3 * C]
  const void* cos;  // acc [T or 1, H or 1, W or 1, R]
  const void* sin;  // as cos
  void* out;        // as qkv

  int64_t num_tokens() const { return num_prefix + grid[0] * grid[1] * grid[2]; }
  int64_t channels() const { return num_heads * head_dim; }
};

}  // namespace vtfast
