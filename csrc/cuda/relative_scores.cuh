// From a tile of queries and the tables of relative positions to relative scores, and back with their gradients.
#pragma once

#include "pooling_copies.cuh"
#include "product.cuh"

namespace vtfast::cuda {

// Where the 16 queries from `first` on are along an axis: `count` positions from `start` on, beyond the end from 0 on.
struct PositionSpan {
  int start;
  int count;
  int own[2];  // which of them the lane's two rows have, -1 for none

  __device__ PositionSpan(const PoolingKernelParams& p, const PositionAxis& axis, int first) {
    const int last = min(first + 16, p.num_queries) - 1 - p.num_prefix;  // of the grid
    const int from = max(first - p.num_prefix, 0) / axis.q_stride;
    start = from % axis.sizes.q_size;
    count = last < 0 ? 0 : min(last / axis.q_stride - from + 1, int{axis.sizes.q_size});
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int query = first + Lane().row + 8 * half - p.num_prefix;
      own[half] = query < 0 || query > last ? -1 : (query / axis.q_stride - from) % axis.sizes.q_size;
    }
  }
};

// 16 pairs, from number `first` on, of a position in a span and a position of keys, the latter fastest. As the layout
// of a product, their rows of the tables.
template <class T, int D>
struct PositionPairs {
  const PositionAxis& axis;
  const PositionSpan& span;
  int base;    // which row of the tables the shared memory begins with
  int rows;    // that it holds
  bool whole;  // whether it holds all of them
  int first = 0;

  __device__ int total() const { return span.count * axis.sizes.k_size; }

  // The row of pair `i` where the shared memory holds it, else another one's.
  __device__ int row(int i) const { return min(max(table_row(i), 0), rows - 1); }
  __device__ static int offset(int row, int vector) { return SharedRow<T, D>::offset(row, vector); }

  // The position of keys of pair `i` if its position is that of the lane's row `half` and its row is there, else -1.
  __device__ int own(int i, int half) const {
    const int pair = first + i, position = pair / axis.sizes.k_size;
    if (pair >= total() || position != span.own[half]) return -1;
    if (!whole && row(i) != table_row(i)) return -1;
    return pair % axis.sizes.k_size;
  }

 private:
  __device__ int table_row(int i) const {
    const int pair = min(first + i, total() - 1), position = span.start + pair / axis.sizes.k_size;
    const int wrapped = position < axis.sizes.q_size ? position : position - axis.sizes.q_size;
    return axis.first_row + axis.sizes.row(wrapped, pair % axis.sizes.k_size) - base;
  }
};

// Calls `body(pairs)` for all pairs of the warp's queries from `first` on, 16 at a time, with their rows in `tables`;
// all threads of the block together. Nothing else may be there, and nothing is left there.
template <class T, int D, class Body>
__device__ inline void for_each_position(const PoolingKernelParams& p, int first, Shared<char> tables,
                                         const Body& body) {
  const int capacity = p.layout.table_rows;
  for (int base = 0; base < p.table_rows; base += capacity) {
    const int rows = min(capacity, p.table_rows - base);
    __syncthreads();
    load_rows<T, D>(static_cast<const T*>(p.tables) + int64_t{base} * p.head_dim, p.head_dim, rows, p.head_dim, rows,
                    tables);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();
#pragma unroll 1
    for (int i = 0; i < 3; ++i) {
      const PositionAxis& axis = p.axes[i];
      if (!axis.exists() || first >= p.num_queries) continue;
      const PositionSpan span(p, axis, first);
      PositionPairs<T, D> pairs{axis, span, base, rows, rows == p.table_rows};
      for (; pairs.first < pairs.total(); pairs.first += 16) body(pairs);
    }
  }
  __syncthreads();
}

// Writes the relative scores of the warp's 16 queries, `q` in shared memory, to rows of its own; zero for the prefix.
template <class T, int D>
__device__ inline void find_relative_scores(const PoolingKernelParams& p, int first, Shared<char> q,
                                            Shared<char> relative, Shared<char> tables) {
  const Lane lane;
  for (int i = lane.index; i < p.layout.pitch; i += 32) relative.as<uint4>()[i] = make_uint4(0, 0, 0, 0);
  __syncwarp();
  Rows<T, D, false> queries;
  queries.load(q);
  for_each_position<T, D>(p, first, tables, [&](const PositionPairs<T, D>& pairs) {
    Block scores;
    multiply(scores, queries, tables, pairs);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int half = i % 4 / 2, key = pairs.own(8 * (i / 4) + lane.column + i % 2, half);
      if (key < 0) continue;
      const Shared<T> row = (relative + (lane.row + 8 * half) * p.layout.pitch).template as<T>();
      row[pairs.axis.first_score + key] = from_float<T>(scores[i / 4][i % 4] * (kLog2e / kPlaced));
    }
  });
  __syncwarp();
}

// Adds to the gradient of the warp's 16 queries what the gradients of their relative scores give; `d_relative` is
// their row in memory.
template <class T, int D>
__device__ inline void add_relative_gradient(const PoolingKernelParams& p, int first, float (&d_q)[D / 8][4],
                                             const T* d_relative, Shared<char> tables) {
  const Lane lane;
  for_each_position<T, D>(p, first, tables, [&](const PositionPairs<T, D>& pairs) {
    Block weights;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int half = i % 4 / 2, key = pairs.own(8 * (i / 4) + lane.column + i % 2, half);
      const int64_t place = int64_t{lane.row + 8 * half} * p.plan.width + pairs.axis.first_score + key;
      weights[i / 4][i % 4] = key < 0 ? 0 : to_float(d_relative[place]);
    }
    accumulate(d_q, Weights<T>(weights), tables, pairs);
  });
}

}  // namespace vtfast::cuda
