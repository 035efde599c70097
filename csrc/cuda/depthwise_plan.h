// How depthwise convolution is cut up, by sizes alone: sums over blocks follow this cut.
#pragma once

#include "depthwise_kernels.h"

namespace vtfast::cuda {

inline int64_t element_size(const DepthwiseConv3dParams& params) {
  return params.data_type == DataType::kFloat32 ? 4 : 2;
}

inline GridBytes bytes_of(const TokenGrid& grid, int64_t element_size) {
  return {grid.data, grid.batch_stride * element_size, grid.t_stride * element_size, grid.h_stride * element_size,
          grid.w_stride * element_size};
}

// Where the sums go, in one piece.
MutableGridBytes targets_at(void* data, const DepthwiseConv3dParams& params, DepthwiseFlow flow);

// At stride 1, for threads that have so many channels each.
DepthwiseTiles plan_tiles(const DepthwiseConv3dParams& params, DepthwiseFlow flow, int thread_channels);

// Weights, bias, source and target are left out.
DepthwiseAnyParams plan_any(const DepthwiseConv3dParams& params, DepthwiseFlow flow);

int num_threads(const DepthwiseTiles& tiles);
int num_threads(const DepthwiseAnyParams& params);

// What a backward sums weights and bias over: tiles of a kernel that slides, or steps of any other.
struct DepthwiseSlabs {
  int64_t size;  // of a slab
  int64_t count;
};

// `blocks` work on a slab.
DepthwiseSlabs depthwise_slabs(int64_t total, int64_t blocks);

int64_t num_tap_tiles(const DepthwiseConv3dParams& params);

}  // namespace vtfast::cuda
