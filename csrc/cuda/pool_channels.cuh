// What a pooling kernel's thread works on: eight neighbouring channels of a token, 16 bytes of a 16-bit type and 32 of
// float.
#pragma once

#include "element.cuh"
#include "pool_params.h"

namespace vtfast::cuda {

inline constexpr int kHalf = kChannels / 2;  // as many floats as a vector has

__device__ inline void unpack(const float4& vector, float* values) {
  values[0] = vector.x;
  values[1] = vector.y;
  values[2] = vector.z;
  values[3] = vector.w;
}

template <class T>
class Channels {
 public:
  // Zeros.
  Channels() = default;

  // `from` is 16-byte aligned.
  __device__ explicit Channels(const T* from) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) vectors_[i] = reinterpret_cast<const uint4*>(from)[i];
  }

  // The first or second four of them.
  __device__ void get(int half, float* values) const {
    if constexpr (sizeof(T) == 4) {
      const uint4& v = vectors_[half];
      unpack(make_float4(__uint_as_float(v.x), __uint_as_float(v.y), __uint_as_float(v.z), __uint_as_float(v.w)),
             values);
    } else {
      const uint32_t first = half == 0 ? vectors_[0].x : vectors_[0].z;
      const uint32_t second = half == 0 ? vectors_[0].y : vectors_[0].w;
      unpack(make_float4(T::low(first), T::high(first), T::low(second), T::high(second)), values);
    }
  }

  __device__ void get(float (&values)[kChannels]) const {
    get(0, values);
    get(1, values + kHalf);
  }

 private:
  static constexpr int kVectors = sizeof(T) / 2;

  uint4 vectors_[kVectors] = {};
};

// `to` is 16-byte aligned.
template <class T>
__device__ inline void store(T* to, const float (&values)[kChannels]) {
  if constexpr (sizeof(T) == 4) {
    reinterpret_cast<float4*>(to)[0] = make_float4(values[0], values[1], values[2], values[3]);
    reinterpret_cast<float4*>(to)[1] = make_float4(values[4], values[5], values[6], values[7]);
  } else {
    *reinterpret_cast<uint4*>(to) = make_uint4(T::pack(values[0], values[1]), T::pack(values[2], values[3]),
                                               T::pack(values[4], values[5]), T::pack(values[6], values[7]));
  }
}

}  // namespace vtfast::cuda
