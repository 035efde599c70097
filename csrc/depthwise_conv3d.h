// Parameters of depthwise convolution, shared by every backend. See vtfast/ops/depthwise_conv3d.py for the semantics.
#pragma once

#include <cstdint>

#include "data_type.h"
#include "geometry.h"
#include "token_rows.h"

namespace vtfast {

// B batch, (T, H, W) the grid, (T', H', W') that of the outputs, C channels, K taps of the kernel. "acc" is float, or
// double for float64 data.
struct DepthwiseConv3dParams {
  PoolAxis t, h, w;
  int64_t batch;
  int64_t channels;
  bool residual;  // adds x; the outputs' grid is that of the inputs then
  DataType data_type;

  TokenGrid x;         // [B, T, H, W, C]
  const void* weight;  // acc [C, K], t slowest
  const void* bias;    // acc [C], or null; forward only
  void* out;           // [B, T', H', W', C]; forward only

  int64_t num_taps() const { return t.kernel * h.kernel * w.kernel; }
  int64_t num_inputs() const { return t.size * h.size * w.size; }
  int64_t num_outputs() const { return t.pooled * h.pooled * w.pooled; }
};

// What is null is not wanted.
struct DepthwiseConv3dGradients {
  TokenGrid grad_out;  // [B, T', H', W', C]
  void* d_x;           // [B, T, H, W, C]
  void* d_weight;      // acc [C, K]
  void* d_bias;        // acc [C]
};

}  // namespace vtfast
