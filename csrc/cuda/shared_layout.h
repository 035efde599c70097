// What stands where in the dynamic shared memory of a block, by the sizes of a plan.
#pragma once

#include "launch_plan.h"

namespace vtfast::cuda {

struct SharedLayout {
  static constexpr int kFieldsPerEntry = 4;    // see entries.cuh
  static constexpr int kTransposeStride = 40;  // floats; see table_gradient.cuh

  int rows, columns;      // entries of an item and of a chunk
  int described;          // entries of a description
  int rows_bytes;         // of one row operand
  int columns_bytes;      // of one column operand
  int description_bytes;  // of one description
  int stats_bytes;        // of one statistic of the queries, which may be the rows or the columns
  int scratch_bytes;      // of a warp: 16 rows on their way out, or a tile on its way into the table's gradient
  int first_columns;  // offsets, the first operand being at 0: column operands behind the row operands of all stages
  int descriptions, stats, table, grads, scratch, pad_sums;
  int total;

  static SharedLayout of(const LaunchPlan& plan, Pass pass, int element_size, int table_size) {
    const bool backward = pass == Pass::kBackward;
    const int row_bytes = plan.padded_dim * element_size;
    SharedLayout l{};
    l.rows = plan.rows;
    l.columns = plan.units * plan.chunk;
    l.described = plan.whole() ? l.columns : l.rows + l.columns;
    l.rows_bytes = l.rows * row_bytes;
    l.columns_bytes = l.columns * row_bytes;
    l.description_bytes = kFieldsPerEntry * l.described * 4;
    l.stats_bytes = (l.rows > l.columns ? l.rows : l.columns) * 4;
    l.scratch_bytes = 16 * (row_bytes > kTransposeStride * 4 ? row_bytes : kTransposeStride * 4);
    l.first_columns = plan.stages * (backward ? 2 : 1) * l.rows_bytes;
    l.descriptions = l.first_columns + plan.stages * 2 * l.columns_bytes;
    l.stats = l.descriptions + (plan.stages + 1) * l.description_bytes;
    l.table = l.stats + (backward ? plan.stages * 2 * l.stats_bytes : 0);
    l.grads = l.table + (plan.table_resident ? table_size * 4 : 0);
    l.scratch = (l.grads + (plan.grads_resident ? plan.warps * table_size * 4 : 0) + 15) / 16 * 16;
    l.pad_sums = l.scratch + (backward ? plan.warps * l.scratch_bytes : 0);
    l.total = l.pad_sums + (backward ? plan.warps * 2 * plan.padded_dim * 4 : 0);
    return l;
  }
};

}  // namespace vtfast::cuda
