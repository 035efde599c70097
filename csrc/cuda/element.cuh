// The data types of tokens: their 16-byte vectors in shared memory and their matrix product.
#pragma once

#include "shared.cuh"

namespace vtfast::cuda {

struct BFloat16 {
  static constexpr uint32_t kExponent = 0x7f80;

  uint16_t bits;

  __device__ static uint32_t pack(float low, float high) { return ptx::cvt_bf16x2(low, high); }
  __device__ static float low(uint32_t pair) { return __uint_as_float(pair << 16); }
  __device__ static float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
  __device__ static void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    ptx::mma_m16n8k16_bf16(c, a, b0, b1);
  }
};

struct Float16 {
  static constexpr uint32_t kExponent = 0x7c00;

  uint16_t bits;

  __device__ static uint32_t pack(float low, float high) { return ptx::cvt_f16x2(low, high); }
  __device__ static float low(uint32_t pair) { return ptx::cvt_f32_f16(static_cast<uint16_t>(pair)); }
  __device__ static float high(uint32_t pair) { return ptx::cvt_f32_f16(static_cast<uint16_t>(pair >> 16)); }
  __device__ static void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    ptx::mma_m16n8k16_f16(c, a, b0, b1);
  }
};

__device__ inline float to_float(float value) { return value; }
template <class T>
__device__ inline float to_float(T value) {
  return T::low(value.bits);
}

template <class T>
__device__ inline T from_float(float value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else {
    return T{static_cast<uint16_t>(T::pack(value, 0))};
  }
}

// Whether no element of a vector is NaN or infinite: those have all bits of the exponent.
template <class T>
__device__ inline bool are_finite(const uint4& vector) {
  bool finite = true;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t word = i == 0 ? vector.x : i == 1 ? vector.y : i == 2 ? vector.z : vector.w;
    if constexpr (sizeof(T) == 4) {
      finite &= (word & 0x7f800000u) != 0x7f800000u;
    } else {
      finite &= (word & T::kExponent) != T::kExponent && (word >> 16 & T::kExponent) != T::kExponent;
    }
  }
  return finite;
}

// A row of D elements in shared memory is `kVectors` vectors of 16 bytes. Their order depends on the row, so that the
// same vector of eight rows one below the other lies in eight different groups of banks.
template <class T, int D>
struct SharedRow {
  static constexpr int kBytes = D * sizeof(T);
  static constexpr int kVectors = kBytes / 16;
  static constexpr int kPerVector = 16 / sizeof(T);

  __device__ static int order(int row) { return kVectors % 8 == 0 ? row & 7 : (row >> 1) & 3; }
  __device__ static int offset(int row, int vector) { return row * kBytes + ((vector ^ order(row)) << 4); }

  // As the layout of a product's columns: column i is row i.
  __device__ static int row(int column) { return column; }
};

// Where a lane's accumulators stand in a 16 x 8 tile: rows `row` and `row + 8`, columns `column` and `column + 1`.
struct Lane {
  int index = threadIdx.x % 32;
  int row = index / 4;
  int column = index % 4 * 2;
};

// Sum over the four lanes that hold a row.
__device__ inline float sum_of_row(float value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

__device__ inline float max_of_row(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

}  // namespace vtfast::cuda
