// Sums over windows at stride 1: each frame of sources comes to shared memory once and is added to the targets of all
// frames that it is in reach of.
//
// A thread has two channels of 16 bits or one of float, a word, not the vector of 16 bytes that it copies: the weights
// of 27 taps stay in its registers then, and seven tenths of its instructions are products. At 16 bits, 27 of these for
// four bytes from and to memory take as long as memory does.
#pragma once

#include "depthwise_stream.cuh"
#include "depthwise_weights.cuh"

namespace vtfast::cuda {

// How the kernel works on `T`, and what shared memory it takes: the stages, then the weights.
template <class T, class Taps>
struct DepthwiseSlide {
  using Lane = LaneChannels<T, 4 / sizeof(T)>;
  using Patch = DepthwisePatch<Lane, kTileLines + Taps::kH - 1, kTileColumns + Taps::kW - 1>;
  using Table = DepthwiseTable<Taps, Lane::kCount>;

  static constexpr int kLaneChannels = Lane::kCount;
  static constexpr int kStages = Taps::kCount > 27 ? 2 : 3;
  static constexpr int kTable = kStages * Patch::kBytes;
  static constexpr int kSharedBytes = kTable + Table::kBytes;
};

// The sums of kT frames of targets, the oldest first.
template <class T, class Taps>
class SlidingSums {
  using Patch = typename DepthwiseSlide<T, Taps>::Patch;
  static constexpr int kCount = DepthwiseSlide<T, Taps>::kLaneChannels;
  using Targets = float[kTileColumns][kCount];

 public:
  // Of windows that hold nothing yet.
  __device__ explicit SlidingSums(const float (&bias)[kCount]) {
#pragma unroll
    for (int i = 0; i < Taps::kT; ++i) set(sums_[i], bias);
  }

  // Adds a frame of sources. It is the first of the newest targets.
  __device__ void add(const DepthwiseWeights<Taps, kCount>& weights, const float (&bias)[kCount], Shared<char> patch,
                      int row, int lane) {
    set(sums_[Taps::kT - 1], bias);
#pragma unroll
    for (int h = 0; h < Taps::kH; ++h) {
      float sources[kTileColumns + Taps::kW - 1][kCount];
      Patch::load(patch, row + h, lane, sources);
#pragma unroll
      for (int i = 0; i < Taps::kT * Taps::kW; ++i) {
        const int t = i / Taps::kW, w = i % Taps::kW;
        float weight[kCount];
        weights.get(Taps::index(t, h, w), weight);
        add_tap(weight, w, sources, sums_[Taps::kT - 1 - t]);
      }
    }
  }

  __device__ const Targets& oldest() const { return sums_[0]; }

  // On to the next frame of sources.
  __device__ void shift() {
#pragma unroll
    for (int i = 0; i + 1 < Taps::kT; ++i) {
#pragma unroll
      for (int j = 0; j < kTileColumns; ++j) {
#pragma unroll
        for (int c = 0; c < kCount; ++c) sums_[i][j][c] = sums_[i + 1][j][c];
      }
    }
  }

 private:
  __device__ static void set(Targets& targets, const float (&bias)[kCount]) {
#pragma unroll
    for (int j = 0; j < kTileColumns; ++j) {
#pragma unroll
      for (int c = 0; c < kCount; ++c) targets[j][c] = bias[c];
    }
  }

  __device__ static void add_tap(const float (&weight)[kCount], int w,
                                 const float (&sources)[kTileColumns + Taps::kW - 1][kCount], Targets& targets) {
#pragma unroll
    for (int j = 0; j < kTileColumns; ++j) {
#pragma unroll
      for (int c = 0; c < kCount; ++c) targets[j][c] += weight[c] * sources[j + w][c];
    }
  }

  Targets sums_[Taps::kT];
};

// Where a thread's targets go, frame by frame from that of `first_t` on, which may be before the tile's.
template <class T, class Lane>
class SlideTargets {
 public:
  __device__ SlideTargets(const DepthwiseSlideParams& p, const DepthwiseTile& tile,
                          const DepthwiseThread<Lane::kCount>& thread, int first_t)
      : t_(first_t),
        to_(shifted(static_cast<T*>(p.target.data) + thread.channel,
                    tile.clip * p.target.batch_stride + first_t * p.target.t_stride +
                        (tile.h + thread.row) * p.target.h_stride + tile.w * p.target.w_stride)),
        columns_(p.tiles.targets.w - tile.w) {}

  __device__ void store(const DepthwiseSlideParams& p, const DepthwiseTile& tile,
                        const float (&targets)[kTileColumns][Lane::kCount]) {
    if (t_ >= tile.t) {
      T* to = to_;
#pragma unroll
      for (int j = 0; j < kTileColumns; ++j, to = shifted(to, p.target.w_stride)) {
        if (j < columns_) Lane::store(to, targets[j]);
      }
    }
    ++t_;
    to_ = shifted(to_, p.target.t_stride);
  }

 private:
  int t_;
  T* to_;
  int columns_;
};

template <class T, class Taps>
__global__ void __launch_bounds__(kDepthwiseThreads, 3)
    depthwise_slide_kernel(const __grid_constant__ DepthwiseSlideParams p) {
  using Slide = DepthwiseSlide<T, Taps>;
  using Patch = typename Slide::Patch;
  constexpr int kCount = Slide::kLaneChannels;
  int place = blockIdx.x;
  const DepthwiseThread<kCount> thread(p.tiles, take_digit(place, p.tiles.chunks));
  const DepthwiseTile tile(p.tiles, place);
  const DeviceCoordinates& padding = p.tiles.padding;

  const typename Slide::Table table(Slide::kTable);
  table.copy(p, thread);
  ptx::cp_async_commit();
  // Frames outside of the grid are none: `padding` is less than kT.
  const int first = max(tile.t - padding.t, 0), past = tile.last_t - 1 - padding.t + Taps::kT;
  Patch patch(p.tiles, p.source, p.tiles.sources, tile.clip, first, tile.h - padding.h, tile.w - padding.w,
              thread.chunk_channel);
  const auto stage_of = [](int stage) { return Shared<char>(stage * Patch::kBytes); };
#pragma unroll
  for (int i = 0; i < Slide::kStages; ++i) patch.clear(stage_of(i));
  auto copy = [&](int, int stage) { patch.copy(stage_of(stage)); };
  FrameStream<Slide::kStages, decltype(copy)> frames(first, min(past, p.tiles.sources.t), copy);
  frames.wait_for_earlier();
  __syncthreads();
  if (p.residual) {
    table.add_residual();
    __syncthreads();
  }

  const DepthwiseWeights<Taps, kCount> weights(table, thread.lane);
  const bool exists = thread.exists && tile.h + thread.row < p.tiles.targets.h;
  float bias[kCount] = {};
#pragma unroll
  for (int c = 0; c < kCount; ++c) {
    if (exists && p.bias != nullptr) bias[c] = p.bias[thread.channel + c];
  }
  SlidingSums<T, Taps> sums(bias);
  SlideTargets<T, typename Slide::Lane> targets(p, tile, thread, first + padding.t - (Taps::kT - 1));
  constexpr int kUnroll = Taps::kT == 3 ? 3 : 1;  // all of the ring, where that is no long code: it then never moves
  frames.template for_each<kUnroll>([&](int, int stage) {
    if (exists) {
      sums.add(weights, bias, stage_of(stage), thread.row, thread.lane);
      targets.store(p, tile, sums.oldest());
    }
    sums.shift();
  });
  for (int frame = p.tiles.sources.t; exists && frame < past; ++frame) {
    targets.store(p, tile, sums.oldest());
    sums.shift();
  }
}

}  // namespace vtfast::cuda
