// What nvcc knows without an include, for a host compiler; forced in front of every kernel source.
#pragma once

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdint>
#include <stdexcept>

#include "engine/grid.h"
#include "engine/warp.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))

struct Dim3 {
  unsigned x, y, z;
};

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline unsigned __float_as_uint(float value) { return std::bit_cast<unsigned>(value); }

using std::max;
using std::min;

// Those of the thread that runs; any call that lets another thread run changes and restores them.
extern Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace vtfast::emulation {

inline void check_full(unsigned mask) {
  if (mask != 0xffffffff) throw std::runtime_error("emulation: only full warps are supported");
}

}  // namespace vtfast::emulation

inline void __syncthreads() { vtfast::emulation::synchronize_block(); }

// Blocks run one after another, so all of them can share what their threads vote for.
inline int __syncthreads_or(int predicate) {
  static std::atomic<int> any;
  __syncthreads();
  any = 0;
  __syncthreads();
  if (predicate != 0) any = 1;
  __syncthreads();
  return any;
}

inline void __syncwarp(unsigned mask = 0xffffffff) {
  vtfast::emulation::check_full(mask);
  vtfast::emulation::synchronize_warp();
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source) {
  static_assert(sizeof(T) == 4);
  vtfast::emulation::check_full(mask);
  return std::bit_cast<T>(vtfast::emulation::exchange(std::bit_cast<uint32_t>(value), source));
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  return __shfl_sync(mask, value, static_cast<int>(threadIdx.x % vtfast::emulation::kWarpSize) ^ lane_mask);
}

inline int __any_sync(unsigned mask, int predicate) {
  vtfast::emulation::check_full(mask);
  return vtfast::emulation::any(predicate != 0);
}
