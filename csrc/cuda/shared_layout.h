// What stands where in the dynamic shared memory of a block; the host asks for its size, the kernel for its offsets.
#pragma once

#include "launch_plan.h"

namespace vtfast::cuda {

struct SharedLayout {
  static constexpr int kFieldsPerEntry = 4;    // see entries.cuh
  static constexpr int kTransposeStride = 40;  // floats; see table_gradient.cuh

  int row_bytes;                                                              // of one row of one operand
  int rows, columns;                                                          // entries of an item and of a chunk
  int described;                                                              // entries of a description
  int operands, descriptions, stats, table, grads, scratch, pad_sums, total;  // offsets in bytes

  VTFAST_HOST_DEVICE SharedLayout(const LaunchPlan& plan, Pass pass, int padded_dim, int element_size, int table_size)
      : row_bytes(padded_dim * element_size),
        rows(plan.rows),
        columns(plan.units * plan.chunk),
        described(plan.whole() ? columns : rows + columns) {
    const bool backward = pass == Pass::kBackward;
    operands = 0;
    descriptions = operands + plan.stages * stage_bytes(backward);
    stats = descriptions + (plan.stages + 1) * kFieldsPerEntry * described * 4;
    table = stats + (backward ? plan.stages * stats_bytes() : 0);
    grads = table + (plan.table_resident ? table_size * 4 : 0);
    scratch = (grads + (plan.grads_resident ? plan.warps * table_size * 4 : 0) + 15) / 16 * 16;
    pad_sums = scratch + (backward ? plan.warps * scratch_bytes() : 0);
    total = pad_sums + (backward ? plan.warps * 2 * padded_dim * 4 : 0);
  }

  // Queries, and what the backward holds next to them; keys and values.
  VTFAST_HOST_DEVICE int stage_bytes(bool backward) const {
    return ((backward ? 2 : 1) * rows + 2 * columns) * row_bytes;
  }

  // Logsumexp and delta of the queries, which may be the rows or the columns.
  VTFAST_HOST_DEVICE int stats_bytes() const { return 2 * (rows > columns ? rows : columns) * 4; }

  // Of a warp: 16 rows on their way out, or a tile on its way into the table's gradient.
  VTFAST_HOST_DEVICE int scratch_bytes() const {
    return 16 * (row_bytes > kTransposeStride * 4 ? row_bytes : kTransposeStride * 4);
  }
};

}  // namespace vtfast::cuda
