#include "depthwise_plan.h"

#include <algorithm>
#include <limits>

#include "depthwise_conv3d.h"

namespace vtfast::cuda {
namespace {

constexpr int64_t kMost = std::numeric_limits<int32_t>::max();

// Frames are cut into pieces until there are so many blocks, three for each multiprocessor of a large GPU...
constexpr int64_t kWantedBlocks = 400;

// ... and slabs that are summed into one set of partial sums are as large as so many blocks allow.
constexpr int64_t kMostSumBlocks = 1024, kFewestSlabs = 8;

constexpr int64_t kMostAnyBlocks = 2048, kMostAnyTableBytes = 48 * 1024;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

Divisor divisor(int64_t value) { return Divisor(static_cast<int>(value)); }

DeviceCoordinates coordinates(int64_t t, int64_t h, int64_t w) {
  return {static_cast<int>(t), static_cast<int>(h), static_cast<int>(w)};
}

DeviceCoordinates inputs(const DepthwiseConv3dParams& p) { return coordinates(p.t.size, p.h.size, p.w.size); }

DeviceCoordinates outputs(const DepthwiseConv3dParams& p) { return coordinates(p.t.pooled, p.h.pooled, p.w.pooled); }

DeviceCoordinates targets(const DepthwiseConv3dParams& p, DepthwiseFlow flow) {
  return flow == DepthwiseFlow::kToOutputs ? outputs(p) : inputs(p);
}

// A stride larger than the padded axis is as good as any other that is.
DevicePoolAxis device_axis(const PoolAxis& axis) {
  const int64_t stride = std::min<int64_t>(axis.stride, axis.size + 2 * axis.padding);
  return DevicePoolAxis::make(static_cast<int>(axis.size), static_cast<int>(axis.kernel), static_cast<int>(stride),
                              static_cast<int>(axis.padding));
}

// Threads of a row: even chunks of the channels, of whole vectors.
int64_t num_lanes(int64_t threads, int64_t most, int64_t of_vector) {
  const int64_t chunks = ceil_div(threads, most);
  return ceil_div(ceil_div(threads, chunks), of_vector) * of_vector;
}

}  // namespace

SlidingKernel sliding_kernel(const DepthwiseConv3dParams& p) {
  for (const PoolAxis* axis : {&p.t, &p.h, &p.w}) {
    if (axis->stride != 1 || axis->padding >= axis->kernel) return SlidingKernel::kNone;
  }
  const auto is = [&](int64_t t, int64_t h, int64_t w) {
    return p.t.kernel == t && p.h.kernel == h && p.w.kernel == w;
  };
  if (is(5, 5, 5)) return SlidingKernel::kLarge;
  if (is(3, 1, 1)) return SlidingKernel::kTime;
  if (is(1, 3, 3)) return SlidingKernel::kPlane;
  return is(3, 3, 3) ? SlidingKernel::kBlock : SlidingKernel::kNone;
}

int sum_channels(DataType type) { return type == DataType::kFloat32 ? 1 : 2; }

int gradient_channels(DataType type, SlidingKernel kernel) {
  return kernel == SlidingKernel::kLarge ? 1 : sum_channels(type);
}

MutableGridBytes targets_at(void* data, const DepthwiseConv3dParams& p, DepthwiseFlow flow) {
  const DeviceCoordinates size = targets(p, flow);
  const int64_t w_stride = p.channels * element_size(p), h_stride = size.w * w_stride;
  const int64_t t_stride = size.h * h_stride;
  return {data, size.t * t_stride, t_stride, h_stride, w_stride};
}

DepthwiseTiles plan_tiles(const DepthwiseConv3dParams& p, DepthwiseFlow flow, int thread_channels) {
  const bool to_outputs = flow == DepthwiseFlow::kToOutputs;
  // A source that is as far from the target as a tap of the mirrored kernel says.
  const auto padding = [&](const PoolAxis& axis) { return to_outputs ? axis.padding : axis.kernel - 1 - axis.padding; };
  const int64_t of_vector = 16 / (thread_channels * element_size(p));
  const int64_t threads = p.channels / thread_channels, lanes = num_lanes(threads, kMostLanes, of_vector);
  DepthwiseTiles tiles{};
  tiles.sources = to_outputs ? inputs(p) : outputs(p);
  tiles.targets = targets(p, flow);
  tiles.padding = coordinates(padding(p.t), padding(p.h), padding(p.w));
  tiles.channels = static_cast<int>(p.channels);
  tiles.lanes = divisor(lanes);
  tiles.vectors = divisor(lanes / of_vector);
  tiles.chunks = divisor(ceil_div(threads, lanes));
  tiles.columns = divisor(ceil_div(tiles.targets.w, kTileColumns));
  tiles.lines = divisor(ceil_div(tiles.targets.h, kTileLines));
  const int64_t planes = p.batch * tiles.columns * tiles.lines;
  // Each piece also takes the frames around it: of fewer than these, more than twice its share.
  const int64_t fewest_frames = std::max<int64_t>(p.t.kernel - 1, 1);
  const int64_t most_pieces = ceil_div(tiles.targets.t, fewest_frames);
  const int64_t pieces = std::clamp<int64_t>(ceil_div(kWantedBlocks, planes * tiles.chunks), 1, most_pieces);
  tiles.piece_frames = static_cast<int>(ceil_div(tiles.targets.t, pieces));
  tiles.pieces = divisor(ceil_div(tiles.targets.t, tiles.piece_frames));
  tiles.count = static_cast<int>(planes * tiles.pieces);
  return tiles;
}

DepthwiseAnyParams plan_any(const DepthwiseConv3dParams& p, DepthwiseFlow flow) {
  const DeviceCoordinates size = targets(p, flow);
  const int64_t threads = p.channels / 8, lanes = num_lanes(threads, kAnyLanes, 1);
  DepthwiseAnyParams k{};
  k.t = device_axis(p.t);
  k.h = device_axis(p.h);
  k.w = device_axis(p.w);
  k.channels = static_cast<int>(p.channels);
  k.lanes = divisor(lanes);
  k.chunks = divisor(ceil_div(threads, lanes));
  k.frames = divisor(size.t);
  k.lines = divisor(size.h);
  k.columns = divisor(size.w);
  k.num_taps = divisor(p.num_taps());
  k.block_rows = static_cast<int>(kDepthwiseThreads / lanes);
  k.rows = static_cast<int>(p.batch * size.t * size.h * size.w);
  k.steps = static_cast<int>(ceil_div(k.rows, k.block_rows));
  k.blocks = static_cast<int>(std::min<int64_t>(k.steps, std::max<int64_t>(kMostAnyBlocks / int64_t{k.chunks}, 1)));
  const int64_t table_bytes = p.num_taps() * lanes * 8 * 4;
  k.table_bytes = table_bytes > kMostAnyTableBytes ? 0 : static_cast<int>(table_bytes);
  return k;
}

int num_threads(const DepthwiseTiles& tiles) { return static_cast<int>(ceil_div(tiles.lanes * kTileLines, 32) * 32); }

int num_threads(const DepthwiseAnyParams& k) { return static_cast<int>(ceil_div(k.block_rows * k.lanes, 32) * 32); }

DepthwiseSlabs depthwise_slabs(int64_t total, int64_t blocks) {
  const int64_t size = ceil_div(total, std::max(kMostSumBlocks / blocks, kFewestSlabs));
  return {size, ceil_div(total, size)};
}

int64_t num_tap_tiles(const DepthwiseConv3dParams& p) {
  return p.t.kernel * ceil_div(p.h.kernel, kAnyTapTile) * ceil_div(p.w.kernel, kAnyTapTile);
}

const char* unsupported(const DepthwiseConv3dParams& p) {
  if (p.data_type == DataType::kFloat64) return "float64 has no kernel on CUDA";
  if (p.channels % 8 != 0) return "C must be a multiple of 8 on CUDA";
  for (const PoolAxis* axis : {&p.t, &p.h, &p.w}) {
    if (axis->size + 2 * axis->padding > kMost / 2) return "an axis of more than 2^30 tokens";
  }
  // Places of rows, and of blocks, which have a row at least.
  const int64_t tokens = p.batch * std::max(p.num_inputs(), p.num_outputs());
  if (tokens * ceil_div(p.channels, 32) > kMost / 2) return "more than 2^30 tokens, in chunks of 32 channels";
  if (p.channels * p.num_taps() > kMost) return "more than 2^31 weights";
  return nullptr;
}

}  // namespace vtfast::cuda
