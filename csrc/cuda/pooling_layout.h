// What stands where in the dynamic shared memory of a block of pooling attention, by the sizes of a plan.
#pragma once

#include "pooling_plan.h"

namespace vtfast::cuda {

struct PoolingLayout {
  int rows_bytes;     // of one row operand: q, grad_out, k or v
  int columns_bytes;  // of one column operand
  int pitch;          // bytes from one row of relative scores to the next
  int relative_rows;  // offsets, the first row operand being at 0
  int columns;        // of stage 0: two operands, then relative scores or places, then logsumexp and delta
  int stage_bytes;    // from one stage to the next
  int relative_columns, statistics;  // within a stage
  int table_rows;                    // rows of tables that fit where the columns are
  int total;

  static PoolingLayout of(const PoolingPlan& plan, PoolingPass pass, int element_size) {
    const int row_bytes = plan.padded_dim * element_size;
    PoolingLayout l{};
    l.rows_bytes = plan.rows() * row_bytes;
    l.columns_bytes = plan.chunk * row_bytes;
    // An odd number of 16-byte vectors, so that eight rows one below the other are in different banks.
    l.pitch = plan.width == 0 ? 0 : plan.width * element_size + 16;
    l.relative_rows = (pass == PoolingPass::kForward ? 1 : 2) * l.rows_bytes;
    l.columns = l.relative_rows + plan.rows() * l.pitch;
    l.relative_columns = 2 * l.columns_bytes;
    l.statistics = l.relative_columns + plan.chunk * l.pitch;
    l.stage_bytes = l.statistics + (pass == PoolingPass::kKeys ? 2 * plan.chunk * 4 : 0);
    l.table_rows = plan.stages * l.stage_bytes / row_bytes;
    l.total = l.columns + plan.stages * l.stage_bytes;
    return l;
  }
};

}  // namespace vtfast::cuda
