// What the kernels of depthwise convolution are launched with: the problem in 32-bit sizes, and how it is cut up.
//
// A target is what a sum is for, a source what it is of: the outputs and the tokens of a forward, the tokens and the
// gradients of the outputs of a backward.
#pragma once

#include "../depthwise_conv3d.h"
#include "divisor.h"

namespace vtfast::cuda {

// Tokens [B, T, H, W, C] with their channels side by side. Strides are in bytes: inner loops add them to addresses.
template <class Void>
struct BasicGridBytes {
  Void* data;
  int64_t batch_stride, t_stride, h_stride, w_stride;
};

using GridBytes = BasicGridBytes<const void>;
using MutableGridBytes = BasicGridBytes<void>;

inline constexpr int kDepthwiseThreads = 128;  // of a block, at most

// Kernels of the published models, at stride 1, slide along t. A block has a tile of targets, a line for each of its
// rows of threads, in a piece of the frames and in a chunk of the channels. The grids of those models have multiples of
// seven columns.
inline constexpr int kTileLines = 4, kTileColumns = 7;
inline constexpr int kMostLanes = kDepthwiseThreads / kTileLines;

struct DepthwiseTiles {
  DeviceCoordinates sources, targets, padding;
  int channels;
  Divisor lanes;    // threads of a row
  Divisor vectors;  // of 16 bytes, that a row has of a token
  Divisor chunks;
  Divisor columns, lines, pieces;  // tiles along w and h, pieces of t
  int piece_frames;
  int count;  // tiles, of all clips but of one chunk
};

struct DepthwiseSlideParams {
  DepthwiseTiles tiles;
  bool flipped;         // the taps in the opposite order
  bool residual;        // adds the source in the target's place
  const float* weight;  // [C, taps]
  const float* bias;    // [C], or null
  GridBytes source;
  MutableGridBytes target;
};

// A block sums over a slab of tiles.
struct DepthwiseSlideGradientParams {
  DepthwiseTiles tiles;
  int slab_tiles;
  GridBytes source;        // the tokens
  GridBytes gradients;     // of the targets
  float* weight_partials;  // [slabs, C, taps]
  float* bias_partials;    // [slabs, C]
};

// Any other kernel: a thread has eight channels of one target. A row is the threads of a target, in a chunk of the
// channels; a block takes `block_rows` rows a step.
inline constexpr int kAnyLanes = 8;    // threads of a row, at most
inline constexpr int kAnyTapTile = 3;  // taps along h and w whose sums a thread of a gradient has, those of one frame

struct DepthwiseAnyParams {
  DevicePoolAxis t, h, w;
  int channels;
  Divisor lanes;  // threads of a row
  Divisor chunks;
  Divisor frames, lines, columns;  // targets along each axis
  Divisor num_taps;
  int block_rows;
  int rows, steps, blocks;  // of a chunk
  int table_bytes;          // of the weights of all taps in shared memory, 0 for too many
  bool residual;            // adds the source in the target's place
  const float* weight;      // [C, taps]
  const float* bias;        // [C], or null
  GridBytes source;
  MutableGridBytes target;
};

// A block sums over a slab of steps, for a tile of taps.
struct DepthwiseAnyGradientParams {
  DepthwiseAnyParams windows;                  // the targets; no weights
  Divisor tap_frames, tap_lines, tap_columns;  // tiles of taps
  int slab_steps;
  GridBytes gradients;     // of the targets
  float* weight_partials;  // [slabs, C, taps]
  float* bias_partials;    // [slabs, C]
};

}  // namespace vtfast::cuda
