// The warp-wide operations of the kernels, as each lane calls them.
#pragma once

#include <cstdint>

namespace vtfast::emulation {

// Value of lane `source`, of the calling lane's choice.
uint32_t exchange(uint32_t value, int source);
bool any(bool predicate);

// Fragments as in the PTX ISA; see csrc/cuda/ptx.cuh.
void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);
void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

struct MatrixRow {
  uint32_t pairs[4];
};
void distribute_rows(uint32_t (&matrices)[4], const MatrixRow& row);
void distribute_rows_transposed(uint32_t (&matrices)[4], const MatrixRow& row);

}  // namespace vtfast::emulation
