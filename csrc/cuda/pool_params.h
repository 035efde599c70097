// What the kernels of token pooling are launched with: the problem in 32-bit sizes, and how it is cut up.
#pragma once

#include "../pool_tokens.h"
#include "divisor.h"

namespace vtfast::cuda {

inline constexpr int kPoolThreads = 192;  // of a block, at most
inline constexpr int kChannels = 8;       // neighbours that a thread works on

// A block's table in shared memory has rows of head_dim floats: scale and shift of the norm, then, if there is room, a
// row a tap.
inline constexpr int kScaleRow = 0, kShiftRow = 1, kTapRows = 2;
inline constexpr int kMostTableBytes = 52 * 1024;

// Behind it is scratch space for sums over the lanes of a row, of so many numbers a thread at most: first the sums,
// then for each number what is summed, with a gap between rows of an even number of lanes.
inline constexpr int kMostLaneSums = 16, kLaneFloats = kPoolThreads * 3 / 2 + 1;

// Whether tokens are summed into windows, or the gradients of windows into tokens.
enum class Flow : int { kToWindows, kToTokens };

// Tokens [B, N, C] with their channels side by side. Strides are in bytes: inner loops add them to addresses.
template <class Void>
struct BasicTokenBytes {
  Void* data;
  int64_t batch_stride, token_stride;
};

using TokenBytes = BasicTokenBytes<const void>;
using MutableTokenBytes = BasicTokenBytes<void>;

// A target is what a sum is for, a source what it is of. A row is a tile of targets along h and w in one head, which
// `lanes` threads work on. Rows of neighbouring h are neighbours: they share most of their sources. A block takes
// `block_rows` rows a step, those of prefix tokens first.
struct PoolKernelParams {
  DevicePoolAxis t, h, w;
  Divisor lanes;
  Divisor heads;
  Divisor frames, lines, columns;  // targets along t, tiles along h and w
  Divisor num_prefix;              // 1 if there is none
  Divisor num_taps;
  int block_rows;
  int rows, prefix_rows;
  int steps, prefix_steps;  // of all blocks
  bool resident_taps;       // whether the table has a row a tap
  int table_column;         // vectors that a lane has for half of its channels; odd, for neighbours to differ in banks
  int table_bytes;
  int scratch;  // where scratch space begins in shared memory
  float eps;
  float head_share;  // 1 / head_dim

  const float* weight;       // [head_dim, taps], or null for a mean
  float mean;                // the weight of a tap of a mean
  const float* norm_weight;  // [head_dim], or null for no norm
  const float* norm_bias;    // [head_dim]

  TokenBytes source;                // from the first token of the grid on
  TokenBytes source_prefix;         // from the first token of the prefix on
  MutableTokenBytes target;         // as source
  MutableTokenBytes target_prefix;  // as source_prefix

  TokenBytes grad_out;         // from the first token of the grid on; where gradients of windows are computed
  TokenBytes grad_out_prefix;  // from the first token of the prefix on
  float* norm_partials;        // [blocks, 2, head_dim]: d_norm_weight and d_norm_bias, or null
  uint16_t* winners;           // [B, N', C]: the taps that hold the maxima, or null

  VTFAST_HOST_DEVICE int head_dim() const { return lanes * kChannels; }
  VTFAST_HOST_DEVICE int channels() const { return heads * head_dim(); }
};

}  // namespace vtfast::cuda
