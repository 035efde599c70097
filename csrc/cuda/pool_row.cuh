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

  // A tile has `lines` x `columns` targets.
  __device__ PoolRow(const PoolKernelParams& p, int step, int lines, int columns)
      : index(static_cast<int>(threadIdx.x) / p.lanes),
        lane(static_cast<int>(threadIdx.x) % p.lanes),
        is_prefix(step < p.prefix_steps) {
    int place = (is_prefix ? step : step - p.prefix_steps) * p.block_rows + index;
    exists = index < p.block_rows && place < (is_prefix ? p.prefix_rows : p.rows);
    if (!exists) place = 0;
    h = is_prefix ? 0 : take_digit(place, p.lines) * lines;
    channel = (take_digit(place, p.heads) * p.lanes + lane) * kChannels;
    w = is_prefix ? 0 : take_digit(place, p.columns) * columns;
    t = take_digit(place, is_prefix ? p.num_prefix : p.frames);
    clip = place;
  }
};

template <class T>
__device__ inline const T* shifted(const T* pointer, int64_t bytes) {
  return reinterpret_cast<const T*>(reinterpret_cast<const char*>(pointer) + bytes);
}

template <class T>
__device__ inline T* shifted(T* pointer, int64_t bytes) {
  return reinterpret_cast<T*>(reinterpret_cast<char*>(pointer) + bytes);
}

// The thread's channels of the first token of its clip.
template <class T>
__device__ inline const T* channels_of(const TokenBytes& tokens, const PoolRow& row) {
  return shifted(static_cast<const T*>(tokens.data) + row.channel, row.clip * tokens.batch_stride);
}

template <class T>
__device__ inline T* channels_of(const MutableTokenBytes& tokens, const PoolRow& row) {
  return shifted(static_cast<T*>(tokens.data) + row.channel, row.clip * tokens.batch_stride);
}

}  // namespace vtfast::cuda
