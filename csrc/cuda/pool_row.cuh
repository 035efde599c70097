// Which targets a thread of a pooling kernel works on.
#pragma once

#include "cuda/ptx.cuh"
#include "pool_params.h"

namespace vtfast::cuda {

// The last digit of `place` to the base `size`, which is taken off.
__device__ inline int take_digit(int& place, Divisor size) {
  const int rest = place / size, digit = place - rest * size;
  place = rest;
  return digit;
}

// Whether a place is on an axis of `size`.
__device__ inline bool inside(int place, int size) {
  return static_cast<unsigned>(place) < static_cast<unsigned>(size);
}

// The row that a thread has in a step.
struct PoolRow {
  int index;  // among those of the block
  int lane;
  bool is_prefix;
  bool exists;
  int clip;
  int t, h, w;  // the first target, or the token of the prefix and two zeros
  int channel;  // of a token, the thread's first
  int vector;   // the same of a head, in vectors of kChannels

  // A tile is `frames` x 1 x `columns` targets.
  __device__ PoolRow(const PoolKernelParams& p, int step, int frames, int columns)
      : index(static_cast<int>(threadIdx.x) / p.lanes),
        lane(static_cast<int>(threadIdx.x) % p.lanes),
        is_prefix(step < p.prefix_steps) {
    int place = (is_prefix ? step : step - p.prefix_steps) * p.block_rows + index;
    exists = index < p.block_rows && place < (is_prefix ? p.prefix_rows : p.rows);
    if (!exists) place = 0;
    h = is_prefix ? 0 : take_digit(place, p.heights);
    const int first_vector = take_digit(place, p.pieces) * p.lanes + lane;
    w = is_prefix ? 0 : take_digit(place, p.columns) * columns;
    t = is_prefix ? take_digit(place, p.num_prefix) : take_digit(place, p.frames) * frames;
    clip = place;
    channel = first_vector * kChannels;
    vector = first_vector % p.head_vectors;
  }
};

// The thread's channels of the first token of its clip.
template <class T>
__device__ inline const T* channels_of(const TokenRows& tokens, const PoolRow& row) {
  return static_cast<const T*>(tokens.data) + int64_t{row.clip} * tokens.batch_stride + row.channel;
}

template <class T>
__device__ inline T* channels_of(const MutableTokenRows& tokens, const PoolRow& row) {
  return static_cast<T*>(tokens.data) + int64_t{row.clip} * tokens.batch_stride + row.channel;
}

}  // namespace vtfast::cuda
