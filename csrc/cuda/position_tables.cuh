// Relative positions on their way in: tables and places in the type of the tokens; and the tables' gradients on their
// way out. Those are sums over all queries that have one position along an axis, of which a block takes a share.
#pragma once

#include "pooling_copies.cuh"
#include "product.cuh"

namespace vtfast::cuda {

inline constexpr int kPositionThreads = 256;

// A thread for each element of the tables, then of the places.
template <class T>
__global__ void __launch_bounds__(kPositionThreads)
    prepare_positions_kernel(const __grid_constant__ PoolingKernelParams p) {
  const int64_t i = int64_t{blockIdx.x} * kPositionThreads + threadIdx.x;
  const int64_t of_tables = int64_t{p.table_rows} * p.head_dim, of_places = int64_t{p.num_keys} * p.plan.width;
  if (i < of_tables) {
    const int row = static_cast<int>(i / p.head_dim), column = static_cast<int>(i % p.head_dim);
    const PositionAxis& axis = p.axes[p.axis_of_row(row)];
    static_cast<T*>(p.tables)[i] = from_float<T>(axis.table[int64_t{row - axis.first_row} * p.head_dim + column]);
  } else if (i - of_tables < of_places) {
    const int64_t place = i - of_tables;
    const int key = static_cast<int>(place / p.plan.width) - p.num_prefix, score = place % p.plan.width;
    bool placed = false;
    for (const PositionAxis& axis : p.axes) {
      placed |= axis.exists() && key >= 0 && score == axis.first_score + key / axis.k_stride % axis.sizes.k_size;
    }
    static_cast<T*>(p.places)[place] = from_float<T>(placed ? kPlaced : 0);
  }
}

// What a block adds up: for one position of queries along an axis, 16 positions of keys and 32 channels, the queries
// times the gradients of their relative scores.
struct TableShare {
  static constexpr int kKeys = 16, kChannels = 32;

  const PositionAxis& axis;
  int slice, first_channel, first_key, position;

  // Of a slice and position.
  static int blocks(int keys, int head_dim) {
    return (keys + kKeys - 1) / kKeys * ((head_dim + kChannels - 1) / kChannels);
  }

  __device__ static TableShare of(const PoolingKernelParams& p) {
    const int block = blockIdx.x, which = block < p.axes[1].first_block ? 0 : block < p.axes[2].first_block ? 1 : 2;
    const PositionAxis& axis = p.axes[which];
    const int channels = (p.head_dim + kChannels - 1) / kChannels, keys = (axis.sizes.k_size + kKeys - 1) / kKeys;
    const int share = (block - axis.first_block) / axis.slices;
    return {axis, (block - axis.first_block) % axis.slices, share % channels * kChannels,
            share / channels % keys * kKeys, share / channels / keys};
  }
};

template <class T>
class TableGradient {
 public:
  using Row = SharedRow<T, TableShare::kChannels>;
  static constexpr int kWarps = kPositionThreads / 32;
  static constexpr int kTile = TableShare::kKeys * TableShare::kChannels;

  // Of shared memory: the rows of 16 queries a warp, later its sums; and which queries they are.
  static constexpr int kRowsBytes = kWarps * (kTile * 4 > 16 * Row::kBytes ? kTile * 4 : 16 * Row::kBytes);
  static constexpr int kSharedBytes = kRowsBytes + kWarps * 2 * 16 * 4;

  __device__ explicit TableGradient(const PoolingKernelParams& p)
      : p_(p),
        share_(TableShare::of(p)),
        rows_(threadIdx.x / 32 * 16 * Row::kBytes),
        pairs_(kRowsBytes + threadIdx.x / 32 * 2 * 16 * 4),
        queries_(pairs_ + 16) {}

  __device__ void run() const {
    float sum[TableShare::kChannels / 8][4] = {};
    const int count = p_.pairs * share_.axis.sharing, step = 16 * kWarps;
    const int64_t steps = (int64_t{count} + step - 1) / step;
    const int last = static_cast<int>((share_.slice + 1) * steps / share_.axis.slices);
    for (int i = static_cast<int>(share_.slice * steps / share_.axis.slices); i < last; ++i) {
      describe(i * step + threadIdx.x / 32 * 16, count);
      load();
      Block weights;
      read_gradients(weights);
      accumulate(sum, Weights<T>(weights), rows_);
      __syncwarp();
    }
    __syncthreads();
    store(sum);
  }

 private:
  // Which queries the warp's 16 are: of those with the position, from number `first` on.
  __device__ void describe(int first, int count) const {
    const int lane = threadIdx.x % 32, number = first + lane;
    if (lane < 16) {
      const PositionAxis& axis = share_.axis;
      const int others = number % axis.sharing;
      const int outer = others / axis.q_stride * axis.sizes.q_size + share_.position;
      pairs_[lane] = number < count ? number / axis.sharing : -1;
      queries_[lane] = p_.num_prefix + outer * axis.q_stride + others % axis.q_stride;
    }
    __syncwarp();
  }

  __device__ void load() const {
#pragma unroll
    for (int i = threadIdx.x % 32; i < 16 * Row::kVectors; i += 32) {
      const int row = i / Row::kVectors, vector = i % Row::kVectors;
      const int channel = share_.first_channel + vector * Row::kPerVector;
      const bool exists = pairs_[row] >= 0 && channel < p_.head_dim;
      const HeadOfClip at(p_, max(pairs_[row], 0));
      const T* from = at.row<const T>(p_, p_.q, exists ? queries_[row] : 0);
      ptx::cp_async_16((rows_ + Row::offset(row, vector)).address(), exists ? from + channel : from, exists);
    }
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncwarp();
  }

  // The gradients of the queries' relative scores, the keys' positions one below the other.
  __device__ void read_gradients(Block& block) const {
    const Lane lane;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int query = 8 * (i / 4) + lane.column + i % 2, key = share_.first_key + lane.row + i % 4 / 2 * 8;
      const int64_t row = int64_t{pairs_[query]} * p_.num_queries + queries_[query];
      const int64_t place = row * p_.plan.width + share_.axis.first_score + key;
      const bool exists = pairs_[query] >= 0 && key < share_.axis.sizes.k_size;
      block[i / 4][i % 4] = exists ? to_float(static_cast<const T*>(p_.d_relative)[place]) : 0;
    }
  }

  // The sums of all warps, added in order.
  __device__ void store(const float (&sum)[TableShare::kChannels / 8][4]) const {
    const Lane lane;
    const Shared<float> sums(0);
#pragma unroll
    for (int d = 0; d < TableShare::kChannels / 8; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = lane.row + i / 2 * 8, column = 8 * d + lane.column + i % 2;
        sums[threadIdx.x / 32 * kTile + row * TableShare::kChannels + column] = sum[d][i];
      }
    }
    __syncthreads();
    const int keys = share_.axis.sizes.k_size;
    const int64_t first = int64_t{share_.position * share_.axis.slices + share_.slice} * keys + share_.first_key;
    for (int i = threadIdx.x; i < kTile; i += kPositionThreads) {
      const int key = i / TableShare::kChannels, channel = share_.first_channel + i % TableShare::kChannels;
      if (share_.first_key + key >= keys || channel >= p_.head_dim) continue;
      float total = 0;
      for (int warp = 0; warp < kWarps; ++warp) total += sums[warp * kTile + i];
      share_.axis.partials[(first + key) * p_.head_dim + channel] = total;
    }
  }

  const PoolingKernelParams& p_;
  const TableShare share_;
  const Shared<char> rows_;  // of the warp
  const Shared<int> pairs_, queries_;
};

template <class T>
__global__ void __launch_bounds__(kPositionThreads)
    table_gradient_kernel(const __grid_constant__ PoolingKernelParams p) {
  TableGradient<T>(p).run();
}

// A block for each row of the tables: the sums of the pairs of positions that have it.
__global__ void __launch_bounds__(kPositionThreads)
    sum_positions_kernel(const __grid_constant__ PoolingKernelParams p) {
  const int of_all = blockIdx.x;
  const PositionAxis& axis = p.axes[p.axis_of_row(of_all)];
  const int row = of_all - axis.first_row, keys = axis.sizes.k_size;
  for (int column = threadIdx.x; column < p.head_dim; column += kPositionThreads) {
    float sum = 0;
    for (int position = 0; position < axis.sizes.q_size; ++position) {
      // Neighbouring keys are a row or more apart, but for rounding.
      const int near = axis.sizes.key_near(position, row);
      for (int key = max(near - 1, 0); key <= min(near + 1, keys - 1); ++key) {
        if (axis.sizes.row(position, key) != row) continue;
        for (int slice = 0; slice < axis.slices; ++slice) {
          const int64_t of_pair = (int64_t{position} * axis.slices + slice) * keys + key;
          sum += axis.partials[of_pair * p.head_dim + column];
        }
      }
    }
    axis.d_table[int64_t{row} * p.head_dim + column] = sum;
  }
}

}  // namespace vtfast::cuda
