// The gradients of weights and bias at stride 1: for each tap the sum, over targets, of gradient times source under the
// tap. As the sums of depthwise_slide.cuh, with the gradients of kT frames of targets in the place of their sums.
#pragma once

#include "depthwise_stream.cuh"
#include "depthwise_weights.cuh"

namespace vtfast::cuda {

// How the kernel works on `T`, and what shared memory it takes: stages of a patch of sources and the tile's gradients.
// A thread holds the sums of all taps, so it has only one channel where those are many.
template <class T, class Taps>
struct DepthwiseSlideGradient {
  static constexpr bool kManyTaps = Taps::kCount > 27;
  static constexpr int kLaneChannels = kManyTaps || sizeof(T) == 4 ? 1 : 2;
  using Lane = LaneChannels<T, kLaneChannels>;
  using Sources = DepthwisePatch<Lane, kTileLines + Taps::kH - 1, kTileColumns + Taps::kW - 1>;
  using Gradients = DepthwisePatch<Lane, kTileLines, kTileColumns>;

  static constexpr int kStages = 3;
  static constexpr int kStageBytes = Sources::kBytes + Gradients::kBytes;

  // At the end they hold the sums of a block's channels.
  static constexpr int kChannelFloats = Taps::kCount + 1;
  static constexpr int kSumBytes = kMostLanes * kLaneChannels * kChannelFloats * 4;
  static constexpr int kStagesBytes = kStages * kStageBytes;
  static constexpr int kSharedBytes = kStagesBytes > kSumBytes ? kStagesBytes : kSumBytes;
};

// The sums of a thread, and the gradients of the kT frames of targets that a frame of sources is under, the oldest
// first.
template <class T, class Taps>
class SlidingGradients {
  using Lane = typename DepthwiseSlideGradient<T, Taps>::Lane;
  using Sources = typename DepthwiseSlideGradient<T, Taps>::Sources;
  using Gradients = typename DepthwiseSlideGradient<T, Taps>::Gradients;
  static constexpr int kCount = Lane::kCount;

 public:
  // Forgets the gradients.
  __device__ void restart() {
#pragma unroll
    for (int i = 0; i < Taps::kT; ++i) set_zero(gradients_[i]);
  }

  // A frame of gradients, or of zeros: the newest.
  __device__ void take(Shared<char> gradients, bool exists, int row, int lane) {
    if (!exists) return set_zero(gradients_[Taps::kT - 1]);
    Gradients::load(gradients, row, lane, gradients_[Taps::kT - 1]);
#pragma unroll
    for (int j = 0; j < kTileColumns; ++j) {
#pragma unroll
      for (int c = 0; c < kCount; ++c) bias_[c] += gradients_[Taps::kT - 1][j][c];
    }
  }

  __device__ void add(Shared<char> patch, int row, int lane) {
#pragma unroll
    for (int h = 0; h < Taps::kH; ++h) {
      float sources[kTileColumns + Taps::kW - 1][kCount];
      Sources::load(patch, row + h, lane, sources);
#pragma unroll
      for (int i = 0; i < Taps::kT * Taps::kW; ++i) {
        const int t = i / Taps::kW, w = i % Taps::kW;
        add_tap(sources, w, gradients_[Taps::kT - 1 - t], weights_[Taps::index(t, h, w)]);
      }
    }
  }

  // On to the next frame.
  __device__ void shift() {
#pragma unroll
    for (int i = 0; i + 1 < Taps::kT; ++i) {
#pragma unroll
      for (int j = 0; j < kTileColumns; ++j) {
#pragma unroll
        for (int c = 0; c < kCount; ++c) gradients_[i][j][c] = gradients_[i + 1][j][c];
      }
    }
  }

  // Adds the sums to those in shared memory, [channels, taps and one for the bias]; or sets them.
  __device__ void leave(Shared<float> sums, int lane, bool is_first) const {
#pragma unroll
    for (int c = 0; c < kCount; ++c) {
      const Shared<float> of_channel = sums + (lane * kCount + c) * (Taps::kCount + 1);
#pragma unroll
      for (int tap = 0; tap <= Taps::kCount; ++tap) {
        const float sum = tap < Taps::kCount ? weights_[tap < Taps::kCount ? tap : 0][c] : bias_[c];
        of_channel[tap] = is_first ? sum : of_channel[tap] + sum;
      }
    }
  }

 private:
  __device__ static void set_zero(float (&gradients)[kTileColumns][kCount]) {
#pragma unroll
    for (int j = 0; j < kTileColumns; ++j) {
#pragma unroll
      for (int c = 0; c < kCount; ++c) gradients[j][c] = 0;
    }
  }

  __device__ static void add_tap(const float (&sources)[kTileColumns + Taps::kW - 1][kCount], int w,
                                 const float (&gradients)[kTileColumns][kCount], float (&sums)[kCount]) {
#pragma unroll
    for (int j = 0; j < kTileColumns; ++j) {
#pragma unroll
      for (int c = 0; c < kCount; ++c) sums[c] += gradients[j][c] * sources[j + w][c];
    }
  }

  float weights_[Taps::kCount][kCount] = {};
  float bias_[kCount] = {};
  float gradients_[Taps::kT][kTileColumns][kCount];
};

// Adds the targets of a tile. All threads of the block have to come.
template <class T, class Taps>
__device__ inline void add_tile(const DepthwiseSlideGradientParams& p, const DepthwiseTile& tile,
                                const DepthwiseThread<DepthwiseSlideGradient<T, Taps>::kLaneChannels>& thread,
                                SlidingGradients<T, Taps>& sums) {
  using Slide = DepthwiseSlideGradient<T, Taps>;
  const DepthwiseTiles& tiles = p.tiles;
  const int first = tile.t - tiles.padding.t, past = tile.last_t - 1 - tiles.padding.t + Taps::kT;
  typename Slide::Sources sources(tiles, p.source, tiles.sources, tile.clip, max(first, 0), tile.h - tiles.padding.h,
                                  tile.w - tiles.padding.w, thread.chunk_channel);
  typename Slide::Gradients gradients(tiles, p.gradients, tiles.targets, tile.clip, tile.t, tile.h, tile.w,
                                      thread.chunk_channel);
  const auto sources_of = [](int stage) { return Shared<char>(stage * Slide::kStageBytes); };
  const auto gradients_of = [&](int stage) { return sources_of(stage) + Slide::Sources::kBytes; };
  __syncthreads();  // nobody reads the stages any more
#pragma unroll
  for (int i = 0; i < Slide::kStages; ++i) {
    sources.clear(sources_of(i));
    gradients.clear(gradients_of(i));
  }
  // With each frame of sources comes that of the newest targets that it is under. Those before the grid are none, and
  // behind it are no new targets: `padding` is less than kT.
  auto copy = [&](int frame, int stage) {
    if (frame >= 0) sources.copy(sources_of(stage));
    if (frame + tiles.padding.t < tile.last_t) gradients.copy(gradients_of(stage));
  };
  const bool exists = thread.exists && tile.h + thread.row < tiles.targets.h;
  sums.restart();
  FrameStream<Slide::kStages, decltype(copy)> frames(first, min(past, tiles.sources.t), copy);
  constexpr int kUnroll = Taps::kT == 3 ? 3 : 1;
  frames.template for_each<kUnroll>([&](int frame, int stage) {
    sums.take(gradients_of(stage), frame + tiles.padding.t < tile.last_t, thread.row, thread.lane);
    if (exists && frame >= 0) sums.add(sources_of(stage), thread.row, thread.lane);
    sums.shift();
  });
}

template <class T, class Taps>
__global__ void __launch_bounds__(kDepthwiseThreads, DepthwiseSlideGradient<T, Taps>::kManyTaps ? 2 : 3)
    depthwise_slide_gradient_kernel(const __grid_constant__ DepthwiseSlideGradientParams p) {
  using Slide = DepthwiseSlideGradient<T, Taps>;
  constexpr int kFloats = Slide::kChannelFloats;
  int slab = blockIdx.x;
  const DepthwiseThread<Slide::kLaneChannels> thread(p.tiles, take_digit(slab, p.tiles.chunks));
  const int first = slab * p.slab_tiles, last = min(first + p.slab_tiles, p.tiles.count);
  SlidingGradients<T, Taps> sums;
  for (int place = first; place < last; ++place) add_tile<T, Taps>(p, DepthwiseTile(p.tiles, place), thread, sums);

  const Shared<float> of_block(0);
  __syncthreads();
  for (int row = 0; row < kTileLines; ++row) {
    if (thread.exists && thread.row == row) sums.leave(of_block, thread.lane, row == 0);
    __syncthreads();
  }
  const int64_t channel = int64_t{slab} * p.tiles.channels + thread.chunk_channel;
  for (int i = threadIdx.x; i < thread.num_channels(p.tiles) * kFloats; i += blockDim.x) {
    const int of_chunk = i / kFloats, tap = i % kFloats;
    float* const to = tap < Taps::kCount ? p.weight_partials + (channel + of_chunk) * Taps::kCount + tap
                                         : p.bias_partials + channel + of_chunk;
    *to = of_block[i];
  }
}

}  // namespace vtfast::cuda
