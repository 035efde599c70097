#include "pool_plan.h"

#include <algorithm>
#include <limits>

#include "pool_tokens.h"

namespace vtfast::cuda {
namespace {

constexpr int64_t kMostBlocks = 2048;

// A slab has at least so many steps: a block that adds up its rows should have had some work before.
constexpr int64_t kSlabSteps = 16, kMostSlabs = 256;

constexpr int64_t kMostTaps = 0xffff;  // winners have 16 bits

constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

bool has_taps(const PoolTokensParams& p) { return p.mode == PoolMode::kConvolution || p.mode == PoolMode::kAverage; }

// Rows that leave the fewest threads of their warps without work.
int num_block_rows(int64_t lanes) {
  int64_t best_rows = 1, best_warps = ceil_div(lanes, 32);
  for (int64_t warps = best_warps; 32 * warps <= kPoolThreads; ++warps) {
    const int64_t rows = 32 * warps / lanes;
    if (rows * best_warps >= best_rows * warps) best_rows = rows, best_warps = warps;
  }
  return static_cast<int>(best_rows);
}

// A stride larger than the padded axis is as good as any other that is.
DevicePoolAxis device_axis(const PoolAxis& axis) {
  const int64_t stride = std::min<int64_t>(axis.stride, axis.size + axis.kernel);
  return DevicePoolAxis::make(static_cast<int>(axis.size), static_cast<int>(axis.kernel), static_cast<int>(stride));
}

int64_t table_column(int64_t taps) { return (kTapRows + taps) | 1; }

int64_t table_bytes(const PoolTokensParams& p, int64_t taps) { return p.head_dim * table_column(taps) * 4; }

// Whether the weights of all taps are in the table.
bool resident_taps(const PoolTokensParams& p) { return has_taps(p) && table_bytes(p, p.num_taps()) <= kMostTableBytes; }

Divisor divisor(int64_t value) { return Divisor(static_cast<int>(std::max<int64_t>(value, 1))); }

}  // namespace

PoolKernelParams plan_pool(const PoolTokensParams& p, Flow flow, int lines, int columns) {
  const bool to_windows = flow == Flow::kToWindows;
  const auto targets = [&](const PoolAxis& axis) { return to_windows ? axis.pooled : axis.size; };
  PoolKernelParams k{};
  k.t = device_axis(p.t);
  k.h = device_axis(p.h);
  k.w = device_axis(p.w);
  k.lanes = divisor(p.head_dim / kChannels);
  k.heads = divisor(p.num_heads);
  k.frames = divisor(targets(p.t));
  k.lines = divisor(ceil_div(targets(p.h), lines));
  k.columns = divisor(ceil_div(targets(p.w), columns));
  k.num_taps = divisor(p.num_taps());
  k.block_rows = num_block_rows(k.lanes);
  // Tokens that are left as they are are treated as a prefix.
  const int64_t prefix = !to_windows ? 0 : p.mode == PoolMode::kNone ? p.num_prefix + p.num_inputs() : p.num_prefix;
  k.num_prefix = divisor(prefix);
  const int64_t tiles = p.mode == PoolMode::kNone ? 0 : int64_t{k.frames} * k.lines * k.columns;
  k.rows = static_cast<int>(p.batch * tiles * k.heads);
  k.prefix_rows = static_cast<int>(p.batch * prefix * k.heads);
  k.prefix_steps = static_cast<int>(ceil_div(k.prefix_rows, k.block_rows));
  k.steps = static_cast<int>(k.prefix_steps + ceil_div(k.rows, k.block_rows));
  k.resident_taps = resident_taps(p);
  const int64_t taps = k.resident_taps ? p.num_taps() : 0;
  k.table_column = static_cast<int>(table_column(taps));
  k.table_bytes = static_cast<int>(table_bytes(p, taps));
  k.scratch = k.table_bytes;
  k.eps = static_cast<float>(p.eps);
  k.head_share = 1.0f / static_cast<float>(p.head_dim);
  k.weight = static_cast<const float*>(p.weight);
  k.mean = 1.0f / static_cast<float>(p.num_taps());
  if (to_windows) {
    k.norm_weight = static_cast<const float*>(p.norm_weight);
    k.norm_bias = static_cast<const float*>(p.norm_bias);
  }
  return k;
}

int num_threads(const PoolKernelParams& k) { return static_cast<int>(ceil_div(k.block_rows * k.lanes, 32) * 32); }

int num_blocks(const PoolKernelParams& k) { return static_cast<int>(std::min<int64_t>(k.steps, kMostBlocks)); }

int tile_stride(const PoolTokensParams& p) {
  const bool fits = p.h.kernel == 3 && p.w.kernel == 3 && p.h.stride == p.w.stride && p.w.stride <= 2;
  return fits && resident_taps(p) ? static_cast<int>(p.w.stride) : 0;
}

WeightSlabs weight_slabs(const PoolKernelParams& k) {
  const int64_t windows = k.steps - k.prefix_steps;
  const int64_t steps = std::max(kSlabSteps, ceil_div(windows, kMostSlabs));
  return {steps, ceil_div(windows, steps)};
}

PoolWorkspace::PoolWorkspace(const PoolTokensParams& p) {
  const int64_t outputs = p.mode == PoolMode::kNone ? 0 : p.batch * p.num_outputs() * p.channels();
  const int64_t taps = p.weight == nullptr ? 0 : p.num_taps();
  // Larger tiles make no more blocks and slabs.
  const PoolKernelParams k = plan_pool(p, Flow::kToWindows, 1, 1);
  const int64_t slabs = std::min(kMostSlabs, ceil_div(k.steps, kSlabSteps));
  gradients = 0;
  winners = outputs;
  norm_partials = winners + (p.mode == PoolMode::kMaximum ? outputs / 2 : 0);
  weight_partials = norm_partials + (p.norm_weight == nullptr ? 0 : num_blocks(k) * 2 * p.head_dim);
  size = weight_partials + (taps == 0 ? 0 : slabs * taps * p.head_dim);
}

const char* unsupported(const PoolTokensParams& p) {
  if (p.data_type == DataType::kFloat64) return "float64 has no kernel on CUDA";
  if (p.head_dim % kChannels != 0 || p.head_dim > kChannels * kPoolThreads) {
    return "head_dim must be a multiple of 8 and at most 1536 on CUDA";
  }
  const int64_t tokens = p.num_prefix + std::max(p.num_inputs(), p.num_outputs());
  if (p.batch * tokens * p.channels() / kChannels > kMost / 2) return "more than 2^33 elements";
  if (p.num_taps() > kMostTaps) return "a window of more than 65535 tokens";
  return nullptr;
}

}  // namespace vtfast::cuda
