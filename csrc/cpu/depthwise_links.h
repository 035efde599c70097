// Depthwise sums over any windows, and over the windows that hold a token.
#pragma once

#include <algorithm>
#include <vector>

#include "depthwise_taps.h"
#include "parallel.h"

namespace vtfast::cpu {

// Along one axis, what an output sums up: the sources, and the tap that weighs each.
class AxisLinks {
 public:
  struct Link {
    int64_t source, tap;
  };

  // Of every window: the tokens under it.
  static AxisLinks of_windows(const PoolAxis& axis) {
    AxisLinks links;
    for (int64_t window = 0; window < axis.pooled; ++window) {
      for (int64_t tap = axis.first_tap(window); tap < axis.last_tap(window); ++tap) {
        links.links_.push_back({axis.token(window, tap), tap});
      }
      links.close();
    }
    return links;
  }

  // Of every token: the windows that hold it.
  static AxisLinks of_tokens(const PoolAxis& axis) {
    AxisLinks links;
    for (int64_t token = 0; token < axis.size; ++token) {
      for (int64_t window = axis.first_window(token); window < axis.last_window(token); ++window) {
        links.links_.push_back({window, token - axis.token(window, 0)});
      }
      links.close();
    }
    return links;
  }

  int64_t size() const { return static_cast<int64_t>(ends_.size()) - 1; }
  const Link* begin(int64_t output) const { return links_.data() + ends_[output]; }
  const Link* end(int64_t output) const { return links_.data() + ends_[output + 1]; }

 private:
  void close() { ends_.push_back(static_cast<int64_t>(links_.size())); }

  std::vector<Link> links_;
  std::vector<int64_t> ends_{0};
};

struct GridLinks {
  AxisLinks t, h, w;
};

// kVectors vectors of one output. `source` is the clip's first token, `out` the output.
template <int kVectors, class T>
VTFAST_INLINE void sum_links(const DepthwiseSum<T>& sum, const TapVectors<AccOf<T>>& all_taps, const GridLinks& links,
                             int64_t t, int64_t h, int64_t w, int64_t vector, const T* source, T* out) {
  using Acc = AccOf<T>;
  const int64_t taps = sum.num_taps(), first = vector * kLanes<Acc>;
  const Acc* weights = all_taps.of(vector);
  Vector<Acc> sums[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) sums[v] = sum.bias_of(vector + v);
  for (auto* along_t = links.t.begin(t); along_t != links.t.end(t); ++along_t) {
    for (auto* along_h = links.h.begin(h); along_h != links.h.end(h); ++along_h) {
      const T* line = source + along_t->source * sum.x.t_stride + along_h->source * sum.x.h_stride;
      const int64_t line_tap = (along_t->tap * sum.h.kernel + along_h->tap) * sum.w.kernel;
      for (auto* along_w = links.w.begin(w); along_w != links.w.end(w); ++along_w) {
        const T* token = line + along_w->source * sum.x.w_stride + first;
        const Acc* weight = weights + (line_tap + along_w->tap) * kLanes<Acc>;
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) {
          const int64_t offset = v * kLanes<Acc>;
          sums[v] += load_up_to(token + offset, sum.channels - first - offset) * load(weight + offset * taps);
        }
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; ++v) {
    const int64_t offset = v * kLanes<Acc>;
    if (sum.residual) {
      const T* same = source + t * sum.x.t_stride + h * sum.x.h_stride + w * sum.x.w_stride + first + offset;
      sums[v] += load_up_to(same, sum.channels - first - offset);
    }
    store_up_to(out + first + offset, sums[v], sum.channels - first - offset);
  }
}

// The outputs' grid is that of the links; `sum.t`, `h` and `w` only number the taps.
template <class T>
void sum_all_links(const DepthwiseSum<T>& sum, const GridLinks& links) {
  const int64_t frames = links.t.size(), height = links.h.size(), width = links.w.size(), vectors = sum.num_vectors();
  const TapVectors<AccOf<T>> taps(sum);
  parallel_for(sum.batch * frames * height, [&](int64_t begin, int64_t end) {
    for (int64_t line = begin; line < end; ++line) {
      const int64_t h = line % height, t = line / height % frames;
      const T* source = sum.x_at(line / height / frames, 0, 0, 0);
      T* out = sum.out + line * width * sum.channels;
      for (int64_t w = 0; w < width; ++w, out += sum.channels) {
        int64_t vector = 0;
        for (; vector + 4 <= vectors; vector += 4) sum_links<4>(sum, taps, links, t, h, w, vector, source, out);
        for (; vector < vectors; ++vector) sum_links<1>(sum, taps, links, t, h, w, vector, source, out);
      }
    }
  });
}

}  // namespace vtfast::cpu
