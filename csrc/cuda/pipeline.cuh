// A thread block's walk over its items, chunk by chunk: describes the entries of a step, loads them ahead of the
// computation where there is room, and says where they stand.
#pragma once

#include "copies.cuh"
#include "shared_layout.h"

namespace vtfast::cuda {

// One chunk of columns for the rows of one item.
struct Step {
  int index;      // of the block's steps
  int ordinal;    // of the block's items
  int unit;       // first of the item
  int first_row;  // of the unit, 0 unless an item is a set of rows
  int chunk;
};

// A tile of 16 rows of a step, and the columns that it meets there: those of its unit.
struct Tile {
  int row;  // first of the tile, among the rows of the item
  int unit;
  int unit_row;      // first of the unit, among the rows and columns of the item
  int entry;         // of the unit, that `row` is
  int count;         // columns, a multiple of 16
  int careful_from;  // columns before it are present, placed and in sight of all rows

  __device__ Tile(const KernelParams& p, const Step& step, int first) : row(first) {
    const LaunchPlan& plan = p.plan;
    const int within = plan.whole() ? row / p.unit_rows : 0;
    unit = step.unit + within;
    unit_row = within * p.unit_rows;
    entry = step.first_row + row - unit_row;
    const int left = plan.groups_per_unit * p.entries - step.chunk * plan.chunk;
    const int present = left < plan.chunk ? left : plan.chunk;
    count = (present + 15) / 16 * 16;
    careful_from = is_masked(p, unit) || (p.table != nullptr && p.group_prefix > 0) ? 0 : present;
  }
};

template <class T, int D, Pass kPass>
class Pipeline {
 public:
  static constexpr bool kBackward = kPass == Pass::kBackward;
  static constexpr int kRowOperands = kBackward ? 2 : 1;

  const SharedLayout layout;
  char* const memory;
  const int head;
  const int worker;

  __device__ explicit Pipeline(const KernelParams& p)
      : layout(p.plan, kPass, D, sizeof(T), p.table_size),
        memory(ptx::shared_memory()),
        head(blockIdx.x % p.num_heads),
        worker(blockIdx.x / p.num_heads),
        p_(p),
        plan_(p.plan),
        items_((static_cast<int>(plan_.items) - worker - 1) / static_cast<int>(plan_.workers) + 1) {}

  // Calls `compute(step)` for every step in order, with its operands in place; all threads of the block together.
  template <class Compute>
  __device__ void run(const Compute& compute) const {
    const int steps = items_ * plan_.chunks;
    const bool ahead = plan_.stages == 2;
    for (int s = 0; s < steps && s < plan_.stages; ++s) describe(at(s));
    __syncthreads();
    if (ahead && steps > 0) load(at(0));
    for (int s = 0; s < steps; ++s) {
      if (!ahead) {
        __syncthreads();
        load(at(s));
      } else {
        ptx::cp_async_wait<0>();
        __syncthreads();
        if (s + 1 < steps) load(at(s + 1));
      }
      if (s + plan_.stages < steps) describe(at(s + plan_.stages));
      if (!ahead) {
        ptx::cp_async_wait<0>();
        __syncthreads();
      }
      compute(at(s));
    }
  }

  // Row operand: q (and grad_out), or k and v in the key phase alone.
  __device__ char* rows(const Step& step, int operand) const {
    return memory + layout.operands +
           (step.ordinal % plan_.stages * kRowOperands + operand) * layout.rows * layout.row_bytes;
  }

  // Column operand: k and v, or q and grad_out in the key phase alone.
  __device__ char* columns(const Step& step, int operand) const {
    return memory + layout.operands + plan_.stages * kRowOperands * layout.rows * layout.row_bytes +
           (step.index % plan_.stages * 2 + operand) * layout.columns * layout.row_bytes;
  }

  __device__ Entries row_entries(const Step& step) const {
    return description(step.ordinal, 0);  // the same list as that of the columns for whole units
  }

  __device__ Entries column_entries(const Step& step) const {
    return plan_.whole() ? description(step.ordinal, 0) : description(step.index, layout.rows);
  }

  // Logsumexp (0) or delta (1) of the queries, infinity where there is none.
  __device__ float* stats(const Step& step, int which) const {
    const int slot = (queries_are_rows() ? step.ordinal : step.index) % plan_.stages;
    return reinterpret_cast<float*>(memory + layout.stats + slot * layout.stats_bytes() +
                                    which * layout.stats_bytes() / 2);
  }

 private:
  __device__ bool queries_are_rows() const { return !kBackward || (p_.phases & kQueryPhase) != 0; }

  __device__ Step at(int index) const {
    if (plan_.whole()) return {index, index, (worker + index * static_cast<int>(plan_.workers)) * plan_.units, 0, 0};
    const int ordinal = index / plan_.chunks, item = worker + ordinal * static_cast<int>(plan_.workers);
    return {index, ordinal, item / plan_.row_sets, item % plan_.row_sets * plan_.rows, index % plan_.chunks};
  }

  __device__ Entries description(int number, int first) const {
    const int slot = number % (plan_.stages + 1);
    const int bytes = SharedLayout::kFieldsPerEntry * layout.described * 4;
    return Entries::at(memory + layout.descriptions + slot * bytes, layout.described, first);
  }

  __device__ void describe(const Step& step) const {
    if (plan_.whole()) {
      const Entries entries = row_entries(step);
      for (int i = threadIdx.x; i < layout.columns; i += blockDim.x) {
        describe_entry(p_, step.unit + i / p_.unit_rows, i % p_.unit_rows, entries, i);
      }
      return;
    }
    if (step.chunk == 0) {
      const Entries entries = row_entries(step);
      for (int i = threadIdx.x; i < layout.rows; i += blockDim.x) {
        describe_entry(p_, step.unit, step.first_row + i, entries, i);
      }
    }
    const Entries entries = column_entries(step);
    for (int i = threadIdx.x; i < layout.columns; i += blockDim.x) {
      describe_entry(p_, step.unit, step.chunk * plan_.chunk + i, entries, i);
    }
  }

  __device__ void load(const Step& step) const {
    const Operand queries[2] = {Operand::kQuery, Operand::kGradOut};
    const Operand keys[2] = {Operand::kKey, Operand::kValue};
    if (step.chunk == 0) {
      const int* entries = row_entries(step).row;
      for (int i = 0; i < kRowOperands; ++i) {
        const Operand operand = queries_are_rows() ? queries[i] : keys[i];
        load_rows<T, D>(p_, operand, head, entries, layout.rows, rows(step, i));
      }
      if (kBackward && queries_are_rows()) load_stats(step, entries, layout.rows, step.first_row);
    }
    const int* entries = column_entries(step).row;
    for (int i = 0; i < 2; ++i) {
      const Operand operand = queries_are_rows() ? keys[i] : queries[i];
      load_rows<T, D>(p_, operand, head, entries, layout.columns, columns(step, i));
    }
    if (kBackward && !queries_are_rows()) load_stats(step, entries, layout.columns, step.chunk * plan_.chunk);
    ptx::cp_async_commit();
  }

  __device__ void load_stats(const Step& step, const int* rows, int count, int first) const {
    const int last = queries_are_rows() ? 1 : 2;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      const int unit = step.unit + (plan_.whole() ? i / p_.unit_rows : 0);
      const int entry = plan_.whole() ? i % p_.unit_rows : first + i;
      for (int which = 0; which < last; ++which) {
        float* to = stats(step, which) + i;
        const float* from = statistic(p_, which == 0 ? p_.lse : p_.delta, which == 0 ? p_.prefix_lse : p_.prefix_delta,
                                      unit, entry, rows[i], head);
        if (from != nullptr) {
          ptx::cp_async_4(to, from);
        } else {
          *to = which == 0 ? INFINITY : 0;
        }
      }
    }
  }

  const KernelParams& p_;
  const LaunchPlan& plan_;
  const int items_;
};

}  // namespace vtfast::cuda
