#include "engine/warp.h"

#include <array>

#include "engine/formats.h"
#include "engine/grid.h"

namespace vtfast::emulation {
namespace {

using Operands = std::array<void*, kWarpSize>;

struct ExchangeOperands {
  uint32_t value;
  int source;
  uint32_t result;
};

void run_exchange(const Operands& operands) {
  const auto of = [&](int lane) { return static_cast<ExchangeOperands*>(operands[lane]); };
  for (int lane = 0; lane < kWarpSize; ++lane) of(lane)->result = of(of(lane)->source & (kWarpSize - 1))->value;
}

void run_any(const Operands& operands) {
  bool any = false;
  for (void* predicate : operands) any |= *static_cast<bool*>(predicate);
  for (void* predicate : operands) *static_cast<bool*>(predicate) = any;
}

struct MmaOperands {
  float* c;
  const uint32_t* a;
  uint32_t b[2];
};

// Products of two such numbers are exact in float; sums are rounded to float one by one.
template <float (*kConvert)(uint16_t)>
void run_mma(const Operands& operands) {
  float a[16][16], b[16][8], c[16][8];
  const auto unpack = [](float* pair, int step, uint32_t bits) {
    pair[0] = kConvert(static_cast<uint16_t>(bits));
    pair[step] = kConvert(static_cast<uint16_t>(bits >> 16));
  };
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto* x = static_cast<const MmaOperands*>(operands[lane]);
    const int g = lane / 4, q = lane % 4;
    for (int i = 0; i < 4; ++i) unpack(&a[g + i % 2 * 8][2 * q + i / 2 * 8], 1, x->a[i]);
    for (int i = 0; i < 2; ++i) unpack(&b[2 * q + i * 8][g], 8, x->b[i]);
    for (int i = 0; i < 4; ++i) c[g + i / 2 * 8][2 * q + i % 2] = x->c[i];
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) c[row][column] += a[row][k] * b[k][column];
    }
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    float* fragment = static_cast<const MmaOperands*>(operands[lane])->c;
    for (int i = 0; i < 4; ++i) fragment[i] = c[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

struct DistributeOperands {
  const MatrixRow* row;
  uint32_t* matrices;
};

uint16_t element(const Operands& operands, int matrix, int row, int column) {
  const MatrixRow* from = static_cast<const DistributeOperands*>(operands[matrix * 8 + row])->row;
  return static_cast<uint16_t>(from->pairs[column / 2] >> column % 2 * 16);
}

template <bool kTransposed>
void run_distribute(const Operands& operands) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const int g = lane / 4, q = lane % 4;
    for (int matrix = 0; matrix < 4; ++matrix) {
      const auto at = [&](int row, int column) -> uint32_t {
        return kTransposed ? element(operands, matrix, column, row) : element(operands, matrix, row, column);
      };
      static_cast<DistributeOperands*>(operands[lane])->matrices[matrix] = at(g, 2 * q) | at(g, 2 * q + 1) << 16;
    }
  }
}

const WarpOperation kExchange{"shuffle", run_exchange};
const WarpOperation kAny{"__any_sync", run_any};
const WarpOperation kMmaBf16{"mma_m16n8k16_bf16", run_mma<float_from_bf16>};
const WarpOperation kMmaF16{"mma_m16n8k16_f16", run_mma<float_from_f16>};
const WarpOperation kDistribute{"ldmatrix_x4", run_distribute<false>};
const WarpOperation kDistributeTransposed{"ldmatrix_x4_trans", run_distribute<true>};

void mma(const WarpOperation& operation, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  MmaOperands operands{c, a, {b0, b1}};
  meet_warp(operation, &operands);
}

void distribute(const WarpOperation& operation, uint32_t (&matrices)[4], const MatrixRow& row) {
  DistributeOperands operands{&row, matrices};
  meet_warp(operation, &operands);
}

}  // namespace

uint32_t exchange(uint32_t value, int source) {
  ExchangeOperands operands{value, source, 0};
  meet_warp(kExchange, &operands);
  return operands.result;
}

bool any(bool predicate) {
  meet_warp(kAny, &predicate);
  return predicate;
}

void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { mma(kMmaBf16, c, a, b0, b1); }

void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { mma(kMmaF16, c, a, b0, b1); }

void distribute_rows(uint32_t (&matrices)[4], const MatrixRow& row) { distribute(kDistribute, matrices, row); }

void distribute_rows_transposed(uint32_t (&matrices)[4], const MatrixRow& row) {
  distribute(kDistributeTransposed, matrices, row);
}

}  // namespace vtfast::emulation
