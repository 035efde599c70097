// Weighted sums over windows of tokens, and over the windows that hold a token.
#pragma once

#include "pool_row.cuh"
#include "pool_table.cuh"

namespace vtfast::cuda {

template <Flow kFlow>
__device__ inline int num_sources(const DevicePoolAxis& axis) {
  return kFlow == Flow::kToWindows ? axis.size : axis.pooled;
}

template <Flow kFlow>
__device__ inline int num_targets(const DevicePoolAxis& axis) {
  return kFlow == Flow::kToWindows ? axis.pooled : axis.size;
}

// The sources [first, last) of a target along an axis.
template <Flow kFlow>
struct Reach {
  int first, last;

  __device__ Reach(const DevicePoolAxis& axis, int target) {
    if constexpr (kFlow == Flow::kToWindows) {
      first = axis.token(target, axis.first_tap(target));
      last = axis.token(target, axis.last_tap(target));
    } else {
      first = axis.first_window(target);
      last = axis.last_window(target);
    }
  }
};

// The tap that joins the two; outside of the kernel where none does.
template <Flow kFlow>
__device__ inline int tap_of(const DevicePoolAxis& axis, int target, int source) {
  return kFlow == Flow::kToWindows ? source - axis.token(target, 0) : target - axis.token(source, 0);
}

// Calls visit(tap, source) for each of a target, in the order of taps or of windows.
template <Flow kFlow, class Visit>
__device__ inline void for_each_source(const PoolKernelParams& p, const PoolRow& row, const Visit& visit) {
  const Reach<kFlow> frames(p.t, row.t), lines(p.h, row.h), columns(p.w, row.w);
  for (int t = frames.first; t < frames.last; ++t) {
    for (int h = lines.first; h < lines.last; ++h) {
      const int plane_tap = tap_of<kFlow>(p.t, row.t, t) * p.h.kernel + tap_of<kFlow>(p.h, row.h, h);
      const int line = (t * num_sources<kFlow>(p.h) + h) * num_sources<kFlow>(p.w);
#pragma unroll 3
      for (int w = columns.first; w < columns.last; ++w) {
        visit(plane_tap * p.w.kernel + tap_of<kFlow>(p.w, row.w, w), line + w);
      }
    }
  }
}

// One target, by windows of any kind.
template <class T, Flow kDirection>
struct AnyWindow {
  using Source = T;
  static constexpr Flow kFlow = kDirection;
  static constexpr int kLines = 1, kColumns = 1, kTargets = 1;

  __device__ static void pool(const PoolKernelParams& p, const PoolRow& row, float (&sums)[1][kChannels]) {
    const PoolTable table(p);
    const T* sources = channels_of<T>(p.source, row);
    for_each_source<kFlow>(p, row, [&](int tap, int source) {
      float values[kChannels], weights[kChannels];
      load(shifted(sources, source * p.source.token_stride), values);
      table.get_weights(p, tap, row.lane, weights);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sums[0][c] += weights[c] * values[c];
    });
  }
};

// Two lines of four targets, by windows three tokens high and wide and `kStride` apart along both axes: a source is
// read once for all of them.
template <class T, Flow kDirection, int kStride>
class Tile {
  static constexpr int kTaps = 3;

  // How many sources as many targets have in reach, which begin at a multiple of kStride.
  static constexpr int num_sources_of(int targets) {
    if (kDirection == Flow::kToWindows) return (targets - 1) * kStride + kTaps;
    return kStride == 1 ? targets + 2 : targets / 2 + 1;
  }

 public:
  using Source = T;
  static constexpr Flow kFlow = kDirection;
  static constexpr int kColumns = 4, kSources = num_sources_of(kColumns);
  static constexpr int kLines = kSources <= 6 ? 2 : 1;  // what registers hold
  static constexpr int kTargets = kLines * kColumns, kSourceLines = num_sources_of(kLines);

  __device__ static void pool(const PoolKernelParams& p, const PoolRow& row, float (&sums)[kTargets][kChannels]) {
    const int first_w = first_source(row.w), width = num_sources<kFlow>(p.w);
    const int first_h = first_source(row.h), height = num_sources<kFlow>(p.h);
    const int64_t stride = p.source.token_stride, line_stride = width * stride;
    const T* first = shifted(channels_of<T>(p.source, row), first_h * line_stride + first_w * stride);
    const Reach<kFlow> frames(p.t, row.t);
    const PoolTable table(p);
    uint4 columns[kSources] = {};  // padding stays zero
    for (int t = frames.first; t < frames.last; ++t) {
      const T* line = shifted(first, t * height * line_stride);
      const int first_tap = kTapRows + tap_of<kFlow>(p.t, row.t, t) * kTaps * kTaps;
#pragma unroll
      for (int i = 0; i < kSourceLines; ++i, line = shifted(line, line_stride)) {
        if (!inside(first_h + i, height)) continue;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (half == 0 || sizeof(T) == 4) load_columns(line + half * kHalf, stride, first_w, width, columns);
          add(table, first_tap, i, row.lane, half, columns, sums);
        }
      }
    }
  }

 private:
  __device__ static int first_source(int target) {
    return kFlow == Flow::kToWindows ? target * kStride - 1 : kStride == 1 ? target - 1 : target / 2;
  }

  // The tap that joins two, counted from the first target and the first source.
  __device__ static constexpr int tap_between(int target, int source) {
    if (kFlow == Flow::kToWindows) return source - target * kStride;
    return kStride == 1 ? target + 2 - source : target + 1 - 2 * source;
  }

  // A vector of each column that there is.
  __device__ static void load_columns(const T* from, int64_t stride, int first_w, int width,
                                      uint4 (&columns)[kSources]) {
#pragma unroll
    for (int i = 0; i < kSources; ++i, from = shifted(from, stride)) {
      if (inside(first_w + i, width)) columns[i] = *reinterpret_cast<const uint4*>(from);
    }
  }

  // Adds what line `source_h` holds, in one half of the channels.
  __device__ static void add(const PoolTable& table, int first_tap, int source_h, int lane, int half,
                             const uint4 (&columns)[kSources], float (&sums)[kTargets][kChannels]) {
    float sources[kSources][kHalf];
#pragma unroll
    for (int i = 0; i < kSources; ++i) unpack<T>(columns[i], half, sources[i]);
#pragma unroll
    for (int i = 0; i < kLines * kTaps; ++i) {
      const int line = i / kTaps, tap_h = tap_between(line, source_h), tap_w = i % kTaps;
      if (tap_h < 0 || tap_h >= kTaps) continue;
      float weights[kHalf];
      table.get(first_tap + tap_h * kTaps + tap_w, lane, half, weights);
      add_tap(weights, tap_w, half, sources, sums + line * kColumns);
    }
  }

  __device__ static void add_tap(const float (&weights)[kHalf], int tap_w, int half,
                                 const float (&sources)[kSources][kHalf], float (*sums)[kChannels]) {
#pragma unroll
    for (int i = 0; i < kColumns * kSources; ++i) {
      const int column = i / kSources, source = i % kSources;
      if (tap_between(column, source) != tap_w) continue;
#pragma unroll
      for (int c = 0; c < kHalf; ++c) sums[column][half * kHalf + c] += weights[c] * sources[source][c];
    }
  }
};

}  // namespace vtfast::cuda
