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
  static constexpr int kFrames = 1, kColumns = 1, kTargets = 1;

  __device__ static void pool(const PoolKernelParams& p, const PoolRow& row, float (&sums)[1][kChannels]) {
    const PoolTable table(p);
    const T* sources = channels_of<T>(p.source, row);
    for_each_source<kFlow>(p, row, [&](int tap, int source) {
      float values[kChannels], weights[kChannels];
      Channels<T>(sources + int64_t{source} * p.source.token_stride).get(values);
      table.get_weights(p, tap, row.vector, weights);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) sums[0][c] += weights[c] * values[c];
    });
  }
};

// The columns that four neighbouring targets have in reach, where windows are three tokens wide and `stride` apart. The
// first target is at a multiple of four.
constexpr int strip_sources(Flow flow, int stride) {
  if (flow == Flow::kToWindows) return 3 * stride + 3;
  return stride == 1 ? 6 : 3;
}

// Four columns of targets in as many frames as registers allow: a source is read once for all of them.
template <class T, Flow kDirection, int kStride>
struct Strip {
  using Source = T;
  static constexpr Flow kFlow = kDirection;
  static constexpr int kSources = strip_sources(kFlow, kStride);
  static constexpr int kFrames = kSources * sizeof(T) <= 24 ? 2 : 1, kColumns = 4, kTargets = kFrames * kColumns;

  __device__ static void pool(const PoolKernelParams& p, const PoolRow& row, float (&sums)[kTargets][kChannels]) {
    const T* sources = channels_of<T>(p.source, row);
    const int last_t = min(row.t + kFrames, num_targets<kFlow>(p.t)) - 1;
    const int first = first_source(row.w);
    const Reach<kFlow> lines(p.h, row.h);
    for (int h = lines.first; h < lines.last; ++h) {
      for (int t = Reach<kFlow>(p.t, row.t).first; t < Reach<kFlow>(p.t, last_t).last; ++t) {
        const int line = (t * num_sources<kFlow>(p.h) + h) * num_sources<kFlow>(p.w) + first;
        Channels<T> columns[kSources];
#pragma unroll
        for (int i = 0; i < kSources; ++i) {
          if (!inside(first + i, num_sources<kFlow>(p.w))) continue;
          columns[i] = Channels<T>(sources + int64_t{line + i} * p.source.token_stride);
        }
        add(p, row, t, last_t, tap_of<kFlow>(p.h, row.h, h), columns, sums);
      }
    }
  }

 private:
  static constexpr int kTaps = 3;

  __device__ static int first_source(int target) {
    return kFlow == Flow::kToWindows ? target * kStride - 1 : kStride == 1 ? target - 1 : target / kStride;
  }

  // The tap that joins two of the columns.
  __device__ static constexpr int tap(int target, int source) {
    if (kFlow == Flow::kToWindows) return source - target * kStride;
    return target + (kStride == 1 ? 2 : 1) - source * kStride;
  }

  // Adds what line `t` holds for each frame of targets.
  __device__ static void add(const PoolKernelParams& p, const PoolRow& row, int t, int last_t, int tap_h,
                             const Channels<T> (&columns)[kSources], float (&sums)[kTargets][kChannels]) {
    const PoolTable table(p);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sources[kSources][kHalf];
#pragma unroll
      for (int i = 0; i < kSources; ++i) columns[i].get(half, sources[i]);
#pragma unroll
      for (int frame = 0; frame < kFrames; ++frame) {
        const int tap_t = tap_of<kFlow>(p.t, row.t + frame, t);
        if (row.t + frame > last_t || !inside(tap_t, p.t.kernel)) continue;
        const int first_tap = (tap_t * p.h.kernel + tap_h) * kTaps;
#pragma unroll
        for (int tap_w = 0; tap_w < kTaps; ++tap_w) {
          float weights[kHalf];
          table.get(kTapRows + first_tap + tap_w, row.vector, half, weights);
          add_tap(tap_w, weights, sources, half, sums + frame * kColumns);
        }
      }
    }
  }

  __device__ static void add_tap(int tap_w, const float (&weights)[kHalf], const float (&sources)[kSources][kHalf],
                                 int half, float (*sums)[kChannels]) {
#pragma unroll
    for (int column = 0; column < kColumns; ++column) {
#pragma unroll
      for (int i = 0; i < kSources; ++i) {
        if (tap(column, i) != tap_w) continue;
#pragma unroll
        for (int c = 0; c < kHalf; ++c) sums[column][half * kHalf + c] += weights[c] * sources[i][c];
      }
    }
  }
};

}  // namespace vtfast::cuda
