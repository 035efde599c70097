// A thread block's walk over its items, chunk by chunk: describes the entries of a step, loads them ahead of the
// computation where there is room, and says where they stand.
#pragma once

#include "copies.cuh"

namespace vtfast::cuda {

// One chunk of columns for the rows of one item.
struct Step {
  int index;      // of the block's steps
  int ordinal;    // of the block's items
  int unit;       // first of the item
  int first_row;  // of the unit, 0 unless an item is a set of rows
  int chunk;
  int sweep;  // over the chunks

  // Of the item.
  __device__ bool is_first() const { return chunk == 0 && sweep == 0; }
};

// A tile of 16 rows of a step, and the columns that it meets there: those of its unit.
struct Tile {
  int row;  // first of the tile, among the rows of the item
  int unit;
  int unit_row;      // first of the unit, among the rows and columns of the item
  int entry;         // of the unit, that `row` is
  int count;         // columns, a multiple of 16
  int careful_from;  // columns before it are present, placed and in sight of all rows

  template <bool kWhole>
  __device__ static Tile of(const KernelParams& p, const Step& step, int row) {
    const LaunchPlan& plan = p.plan;
    const int within = kWhole ? row / p.unit_rows : 0, unit_row = within * p.unit_rows;
    const int left = plan.groups_per_unit * p.entries - step.chunk * plan.chunk;
    const int present = left < plan.chunk ? left : plan.chunk, unit = step.unit + within;
    const bool masked = is_masked(p, unit) || (p.table != nullptr && p.group_prefix > 0);
    return {row, unit, unit_row, step.first_row + row - unit_row, (present + 15) / 16 * 16, masked ? 0 : present};
  }
};

// `kWhole` is plan.whole(); `kQueriesAreRows` unless the rows are keys and the columns queries; `kSweeps` is how often
// an item's chunks are walked over.
template <class T, int D, Pass kPass, bool kWhole, bool kQueriesAreRows, int kSweeps = 1>
class Pipeline {
 public:
  static constexpr bool kBackward = kPass == Pass::kBackward;
  static constexpr int kRowOperands = kBackward ? 2 : 1;

  const int head;
  const int worker;

  __device__ explicit Pipeline(const KernelParams& p)
      : head(blockIdx.x % p.num_heads),
        worker(blockIdx.x / p.num_heads),
        p_(p),
        items_((static_cast<int>(p.plan.items) - worker - 1) / static_cast<int>(p.plan.workers) + 1) {}

  // Calls `compute(step)` for every step in order, with its operands in place; all threads of the block together. Loads
  // run `lead` steps ahead of it, and the descriptions that they follow one more.
  template <class Compute>
  __device__ void run(const Compute& compute) const {
    const int steps = items_ * kSweeps * (kWhole ? 1 : p_.plan.chunks), lead = p_.plan.stages - 1;
    for (int s = -p_.plan.stages; s < steps; ++s) {
      if (lead > 0) ptx::cp_async_wait<0>();
      __syncthreads();
      if (s + lead >= 0 && s + lead < steps) load(at(s + lead));
      if (s + p_.plan.stages < steps) describe(at(s + p_.plan.stages), kEveryMember);
      if (lead == 0) {
        ptx::cp_async_wait<0>();
        __syncthreads();
      }
      if (s >= 0) compute_apart(at(s), compute);
    }
  }

  // Whether the rows of an item have met all columns.
  __device__ bool is_last(const Step& step) const {
    return kWhole || (step.chunk == p_.plan.chunks - 1 && step.sweep == kSweeps - 1);
  }

  // Row operand: q (and grad_out), or k and v in the key phase alone.
  __device__ Shared<char> rows(const Step& step, int operand) const {
    return Shared<char>((stage(step.ordinal) * kRowOperands + operand) * p_.layout.rows_bytes);
  }

  // Column operand: k and v, or q and grad_out in the key phase alone.
  __device__ Shared<char> columns(const Step& step, int operand) const {
    return Shared<char>(p_.layout.first_columns + (stage(step.index) * 2 + operand) * p_.layout.columns_bytes);
  }

  __device__ Entries row_entries(const Step& step) const { return description(step.ordinal, 0); }

  // The same list for whole units.
  __device__ Entries column_entries(const Step& step) const {
    return kWhole ? description(step.ordinal, 0) : description(step.index, p_.layout.rows);
  }

  // Logsumexp (0) or delta (1) of the queries, infinity where there is none.
  __device__ Shared<float> stats(const Step& step, int which) const {
    const int slot = stage(kQueriesAreRows ? step.ordinal : step.index);
    return Shared<float>(p_.layout.stats + (slot * 2 + which) * p_.layout.stats_bytes);
  }

 private:
  // Groups that share a tile share its products, where zero times NaN is NaN. A step that holds anything but finite
  // numbers is computed once for each group, with the others left out.
  template <class Compute>
  __device__ void compute_apart(const Step& step, const Compute& compute) const {
    constexpr bool kMayShare = kWhole && max_groups_per_unit(D) > 1;
    const bool shared = kMayShare && p_.plan.groups_per_unit > 1;
    const int passes = shared && __syncthreads_or(!is_finite(step)) ? p_.plan.groups_per_unit : 1;
#pragma unroll 1
    for (int pass = 0; pass < passes; ++pass) {
      if (passes > 1) {
        __syncthreads();
        describe(step, pass);
        __syncthreads();
        load(step);
        ptx::cp_async_wait<0>();
        __syncthreads();
      }
      compute(step);
    }
  }

  // Of this thread's share of the operands.
  __device__ bool is_finite(const Step& step) const {
    bool finite = true;
    const auto look = [&](Shared<uint4> vectors, int bytes) {
#pragma unroll 4
      for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x) finite &= are_finite<T>(vectors[i]);
    };
    look(rows(step, 0).template as<uint4>(), kRowOperands * p_.layout.rows_bytes);
    look(columns(step, 0).template as<uint4>(), 2 * p_.layout.columns_bytes);
    return finite;
  }

  __device__ int stage(int number) const { return number & (p_.plan.stages - 1); }

  __device__ Step at(int index) const {
    const int workers = static_cast<int>(p_.plan.workers);
    if (kWhole) return {index, index, (worker + index * workers) * p_.plan.units, 0, 0, 0};
    const int sweep = index / p_.chunks, ordinal = sweep / kSweeps, item = worker + ordinal * workers;
    return {index, ordinal, item / p_.row_sets, item % p_.row_sets * p_.plan.rows, index % p_.chunks, sweep % kSweeps};
  }

  __device__ Entries description(int number, int first) const {
    const int slot = p_.plan.stages == 2 ? number % 3 : number % 2;
    return Entries(Shared<int>(p_.layout.descriptions + slot * p_.layout.description_bytes), p_.layout.described,
                   first);
  }

  __device__ void describe(const Step& step, int only) const {
    if (step.is_first()) describe(row_entries(step), p_.layout.rows, step.unit, step.first_row, only);
    if (!kWhole) describe(column_entries(step), p_.layout.columns, step.unit, step.chunk * p_.plan.chunk, only);
  }

  // `count` entries: of whole units, or from `first` on of one.
  __device__ void describe(const Entries& entries, int count, int unit, int first, int only) const {
#pragma unroll 1
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      const int within = kWhole ? i / p_.unit_rows : 0, entry = kWhole ? i % p_.unit_rows : first + i;
      describe_entry(p_, unit + within, entry, only, entries, i);
    }
  }

  __device__ static Operand of_queries(int i) { return i == 0 ? Operand::kQuery : Operand::kGradOut; }
  __device__ static Operand of_keys(int i) { return i == 0 ? Operand::kKey : Operand::kValue; }

  __device__ void load(const Step& step) const {
    if (step.is_first()) {
      const Shared<int> entries = row_entries(step).row;
#pragma unroll 1
      for (int i = 0; i < kRowOperands; ++i) {
        load_rows<T, D>(p_, kQueriesAreRows ? of_queries(i) : of_keys(i), head, entries, p_.layout.rows, rows(step, i));
      }
      if (kBackward && kQueriesAreRows) load_stats(step, entries, p_.layout.rows, step.first_row);
    }
    const Shared<int> entries = column_entries(step).row;
#pragma unroll 1
    for (int i = 0; i < 2; ++i) {
      load_rows<T, D>(p_, kQueriesAreRows ? of_keys(i) : of_queries(i), head, entries, p_.layout.columns,
                      columns(step, i));
    }
    if (kBackward && !kQueriesAreRows) load_stats(step, entries, p_.layout.columns, step.chunk * p_.plan.chunk);
    ptx::cp_async_commit();
  }

  __device__ void load_stats(const Step& step, Shared<int> rows, int count, int first) const {
    const int last = kQueriesAreRows ? 1 : 2;
#pragma unroll 1
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
      const int unit = step.unit + (kWhole ? i / p_.unit_rows : 0);
      const int entry = kWhole ? i % p_.unit_rows : first + i;
#pragma unroll 1
      for (int which = 0; which < last; ++which) {
        const Shared<float> to = stats(step, which) + i;
        const float* from = statistic(p_, which == 0 ? p_.lse : p_.delta, which == 0 ? p_.prefix_lse : p_.prefix_delta,
                                      unit, entry, rows[i], head);
        if (from != nullptr) {
          ptx::cp_async_4(to.address(), from);
        } else {
          to[0] = which == 0 ? INFINITY : 0;
        }
      }
    }
  }

  const KernelParams& p_;
  const int items_;
};

}  // namespace vtfast::cuda
