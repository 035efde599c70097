// Stands in for csrc/cuda/ptx.cuh.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "engine/formats.h"
#include "engine/grid.h"
#include "engine/warp.h"

namespace vtfast::ptx {

inline char* shared_memory() { return emulation::shared_memory(); }

// Offset from the start of the shared memory.
inline uint32_t shared_address(const void* shared) {
  return static_cast<uint32_t>(static_cast<const char*>(shared) - shared_memory());
}

// The source is read now, so that a bad address is reported here; what was in shared memory is lost at once, and the
// copy is there when it was waited for.
template <size_t kBytes>
void start_copy(void* shared, const void* global, bool valid) {
  emulation::check_shared(shared, kBytes, "cp_async");
  if (reinterpret_cast<uintptr_t>(global) % kBytes != 0) {
    throw std::runtime_error("emulation: cp_async: the address in global memory is not aligned");
  }
  emulation::AsyncCopies::Bytes bytes{};
  if (valid) std::memcpy(bytes.data(), global, kBytes);
  std::memset(shared, static_cast<int>(emulation::kPoison), kBytes);
  emulation::async_copies().start(shared, bytes, kBytes);
}

inline void cp_async_16(void* shared, const void* global, bool valid) { start_copy<16>(shared, global, valid); }

inline void cp_async_4(void* shared, const void* global) { start_copy<4>(shared, global, true); }

inline void cp_async_commit() { emulation::async_copies().commit(); }

template <int kPending>
void cp_async_wait() {
  emulation::async_copies().wait(kPending);
}

inline emulation::MatrixRow load_row(const void* shared_row) {
  emulation::check_shared(shared_row, 16, "ldmatrix_x4");
  emulation::MatrixRow row;
  std::memcpy(row.pairs, shared_row, sizeof(row.pairs));
  return row;
}

inline void ldmatrix_x4(uint32_t (&matrices)[4], const void* shared_row) {
  emulation::distribute_rows(matrices, load_row(shared_row));
}

inline void ldmatrix_x4_trans(uint32_t (&matrices)[4], const void* shared_row) {
  emulation::distribute_rows_transposed(matrices, load_row(shared_row));
}

inline void mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulation::mma_bf16(c, a, b0, b1);
}

inline void mma_m16n8k16_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulation::mma_f16(c, a, b0, b1);
}

// Subnormal results are zero; a subnormal x has 2^x = 1 anyway.
inline float ex2(float x) {
  const float y = std::exp2(x);
  return y < std::numeric_limits<float>::min() ? 0.0f : y;
}

inline uint32_t cvt_bf16x2(float low, float high) {
  return emulation::bf16_from_float(low) | static_cast<uint32_t>(emulation::bf16_from_float(high)) << 16;
}

inline uint32_t cvt_f16x2(float low, float high) {
  return emulation::f16_from_float(low) | static_cast<uint32_t>(emulation::f16_from_float(high)) << 16;
}

inline float cvt_f32_f16(uint16_t half) { return emulation::float_from_f16(half); }

}  // namespace vtfast::ptx
