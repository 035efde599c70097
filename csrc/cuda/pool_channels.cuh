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

// The first or second half of the channels, from the vector that has it: float has one for each.
template <class T>
__device__ inline void unpack(const uint4& vector, int half, float* values) {
  if constexpr (sizeof(T) == 4) {
    unpack(make_float4(__uint_as_float(vector.x), __uint_as_float(vector.y), __uint_as_float(vector.z),
                       __uint_as_float(vector.w)),
           values);
  } else {
    const uint32_t first = half == 0 ? vector.x : vector.z, second = half == 0 ? vector.y : vector.w;
    unpack(make_float4(T::low(first), T::high(first), T::low(second), T::high(second)), values);
  }
}

// `from` is 16-byte aligned.
template <class T>
__device__ inline void load(const T* from, float (&values)[kChannels]) {
  const uint4* vectors = reinterpret_cast<const uint4*>(from);
  unpack<T>(vectors[0], 0, values);
  unpack<T>(vectors[sizeof(T) == 4 ? 1 : 0], 1, values + kHalf);
}

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
