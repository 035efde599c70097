// Sums of what thread blocks left in memory, in an order that depends on sizes alone.
#pragma once

#include "../geometry.h"

namespace vtfast::cuda {

// The sums of the columns of partial sums [rows, stride]; without columns, none.
struct ColumnSums {
  static constexpr int kColumns = 8;  // of a block; divides their number

  const float* partials;
  float* sums;
  int64_t rows, stride, columns;

  VTFAST_HOST_DEVICE int64_t num_blocks() const { return columns / kColumns; }
};

struct ColumnSumsParams {
  ColumnSums sums[3];

  int64_t num_blocks() const { return sums[0].num_blocks() + sums[1].num_blocks() + sums[2].num_blocks(); }
};

// On `stream`, a cudaStream_t.
void sum_columns(const ColumnSumsParams& params, void* stream);

}  // namespace vtfast::cuda
