#include "block_sum.cuh"
#include "column_sums.h"
#include "cuda/launch.cuh"
#include "shared.cuh"

namespace vtfast::cuda {
namespace {

__global__ void __launch_bounds__(kSumThreads) column_sums_kernel(const __grid_constant__ ColumnSumsParams p) {
  int64_t block = blockIdx.x;
  int i = 0;
  while (block >= p.sums[i].num_blocks()) block -= p.sums[i++].num_blocks();
  const ColumnSums& sums = p.sums[i];
  const int64_t first = block * ColumnSums::kColumns;
  sum_rows(
      sums.rows, ColumnSums::kColumns, Shared<float>(0).address(),
      [&](int64_t row, int column) { return sums.partials[row * sums.stride + first + column]; },
      [&](int column, float sum) { sums.sums[first + column] = sum; });
}

}  // namespace

void sum_columns(const ColumnSumsParams& params, void* stream) {
  launch(column_sums_kernel, params.num_blocks(), kSumThreads, kSumThreads * sizeof(float), stream, params);
}

}  // namespace vtfast::cuda
