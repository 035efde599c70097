// Backward pass of token pooling, in two passes over the data. The first goes through the outputs: it pools again, for
// the statistics of the norm, and leaves the gradient of what was pooled, and the sums for weights and norm. The second
// goes through the inputs and gathers their gradient from the windows over each.
#include "head_norm.h"
#include "parallel.h"
#include "pool_tokens.h"
#include "pool_window.h"
#include "pool_winners.h"
#include "with_data_type.h"

namespace vtfast::cpu {
namespace {

// How the outputs are cut up: sums over them follow this cut, so it depends on sizes alone, never on the number of
// threads. The prefix of a clip is one more chunk.
struct Chunks {
  int64_t lines;
  int64_t lines_per_chunk;
  int64_t count;

  explicit Chunks(const PoolTokensParams& p) : lines(HeadLine::num_outputs(p, PoolOrder(p))) {
    constexpr int64_t kWanted = 64;
    lines_per_chunk = (lines + kWanted - 1) / kWanted;
    count = (lines + lines_per_chunk - 1) / lines_per_chunk;
  }
};

// The parts of the workspace, in elements.
template <class Acc>
struct Workspace {
  int64_t pooled;      // gradients of what was pooled, [B, N', C]
  int64_t winners;     // for maxima, their taps, [B, N', C]
  int64_t sums;        // of a chunk: d_weight [taps, padded], d_norm_weight, d_norm_bias [padded]
  int64_t num_chunks;  // of outputs, and one of each clip's prefix

  explicit Workspace(const PoolTokensParams& p)
      : pooled(p.batch * p.num_outputs() * p.channels()),
        winners(p.mode == PoolMode::kMaximum ? pooled : 0),
        sums((p.num_taps() + 2) * round_up(p.head_dim, kLanes<Acc>)),
        num_chunks(Chunks(p).count + (p.num_prefix > 0 ? p.batch : 0)) {}

  int64_t size() const { return pooled + winners + sums * num_chunks; }
};

// The gradients of weights and norm that one chunk adds up, in its part of the workspace.
template <class Acc>
struct ChunkSums {
  Acc* weight;       // [taps, padded]
  Acc* norm_weight;  // [padded]
  Acc* norm_bias;    // [padded]

  ChunkSums(const PoolTokensParams& p, int64_t padded, Acc* memory)
      : weight(memory), norm_weight(memory + p.num_taps() * padded), norm_bias(memory + (p.num_taps() + 1) * padded) {
    std::fill_n(memory, (p.num_taps() + 2) * padded, Acc(0));
  }
};

template <class T, class Pool>
class PooledGradient {
 public:
  using Acc = AccOf<T>;

  static size_t scratch_bytes(const PoolTokensParams& p) {
    const int64_t padded = round_up(p.head_dim, kLanes<Acc>);
    return WindowWeights<Acc>::scratch_bytes(p) + HeadNorm<Acc>::scratch_bytes(p.head_dim) +
           PoolLine<T, Pool>::scratch_bytes(padded) + Scratch::bytes_of<Acc>(padded) +
           Scratch::bytes_of<Acc>(PoolOrder(p).line.axis.pooled * padded);
  }

  PooledGradient(const PoolTokensParams& p, const PoolTokensGradients& gradients, Acc* d_pooled, Acc* winners,
                 Scratch& scratch)
      : p_(p),
        gradients_(gradients),
        d_pooled_(d_pooled),
        winners_(winners),
        padded_(round_up(p.head_dim, kLanes<Acc>)),
        order_(p),
        weights_(p, scratch),
        norm_(p.norm_weight, p.norm_bias, p.head_dim, p.eps, scratch),
        line_(p.head_dim, padded_, order_.line.input * p.x.token_stride,
              order_.inner.axis.stride * order_.inner.input * p.x.token_stride, scratch),
        window_(p, order_),
        d_row_(scratch.take<Acc>(padded_)),
        d_line_(scratch.take<Acc>(order_.line.axis.pooled * padded_)) {}

  void run(int64_t index, const ChunkSums<Acc>& sums) {
    const HeadLine at = HeadLine::of_outputs(p_, order_, index);
    const T* grid = static_cast<const T*>(p_.x.data) + at.batch * p_.x.batch_stride +
                    p_.num_prefix * p_.x.token_stride + at.head * p_.head_dim;
    const int64_t first = at.outer * order_.outer.output + at.inner * order_.inner.output, channels = p_.channels();
    const int64_t places = order_.line.axis.pooled, stride = order_.line.output * channels;
    const T* grad_out = static_cast<const T*>(gradients_.grad_out) + at.head * p_.head_dim +
                        (at.batch * (p_.num_prefix + p_.num_outputs()) + p_.num_prefix + first) * channels;
    const int64_t target = (at.batch * p_.num_outputs() + first) * channels + at.head * p_.head_dim;
    const auto& lines = window_.lines(grid, weights_, at);
    const auto differentiate = [&](int64_t place, Acc* row) {
      load_row(grad_out + place * stride, p_.head_dim, padded_, Acc(1), d_row_);
      norm_.differentiate(row, d_row_, sums.norm_weight, sums.norm_bias);
      if (row != d_line_ + place * padded_) std::copy_n(row, padded_, d_line_ + place * padded_);
      store_row(row, p_.head_dim, Acc(1), d_pooled_ + target + place * stride);
    };
    if (norm_.present()) {
      line_.run(lines, window_.taps(), places, differentiate);
    } else {
      for (int64_t place = 0; place < places; ++place) differentiate(place, d_line_ + place * padded_);
    }
    if (winners_ != nullptr) {
      find_winners<T>(lines, window_.taps(), order_.line.tap, places, order_.line.input * p_.x.token_stride,
                      p_.head_dim, winners_ + target, stride);
    }
    if (gradients_.d_weight != nullptr) add_weights(lines, sums.weight);
  }

 private:
  // sums[tap] += sum over the places of d_line[place] x[the token under the tap]
  void add_weights(const std::vector<WindowLine<T, Acc>>& lines, Acc* sums) {
    const WindowTaps taps = window_.taps();
    const bool three = taps.are_three_neighbours(order_.line.axis.pooled);
    for (const auto& line : lines) {
      Acc* target = sums + line.first_tap * padded_;
      if (three) {
        for_each_chunk([&]<int kVectors, bool kPartial>(int64_t d) { add_three<kVectors, kPartial>(line, d, target); });
        continue;
      }
      for (int64_t i = 0; i < taps.count; ++i) {
        const WindowTaps tap{taps.taps + i, 1, taps.step, taps.size};
        for_each_chunk([&]<int kVectors, bool kPartial>(int64_t d) {
          add_channels<kVectors, kPartial>(line, tap, d, target + tap.taps->tap * padded_);
        });
      }
    }
  }

  // Calls body.template operator()<kVectors, kPartial>(d) for the channels in turn.
  template <class Body>
  VTFAST_INLINE void for_each_chunk(Body body) const {
    int64_t d = 0;
    for (; d + 3 * kLanes<Acc> <= p_.head_dim; d += 3 * kLanes<Acc>) body.template operator()<3, false>(d);
    for (; d + kLanes<Acc> <= p_.head_dim; d += kLanes<Acc>) body.template operator()<1, false>(d);
    if (d < p_.head_dim) body.template operator()<1, true>(d);
  }

  template <bool kPartial>
  VTFAST_INLINE Vector<Acc> fetch(const T* source, int64_t d) const {
    if constexpr (kPartial) return load_partial_as_acc(source, p_.head_dim - d);
    return load_as_acc(source);
  }

  // The taps before, on and behind a place, on a line of as many tokens as places; each token is read once.
  template <int kVectors, bool kPartial>
  VTFAST_INLINE void add_three(const WindowLine<T, Acc>& line, int64_t d, Acc* target) {
    const int64_t stride = order_.line.input * p_.x.token_stride, size = order_.line.axis.size;
    const int64_t tap = order_.line.tap * padded_;
    const T* x = line.tokens + d;
    const Acc* gradient = d_line_ + d;
    Vector<Acc> sum[3][kVectors], before[kVectors] = {}, on[kVectors], behind[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
      on[v] = fetch<kPartial>(x + v * kLanes<Acc>, d);
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k) sum[k][v] = load(target + k * tap + d + v * kLanes<Acc>);
    }
    for (int64_t place = 0; place < size; ++place, gradient += padded_) {
      x += place + 1 < size ? stride : 0;
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) {
        const Vector<Acc> g = load(gradient + v * kLanes<Acc>);
        behind[v] = fetch<kPartial>(x + v * kLanes<Acc>, d);
        sum[0][v] += g * before[v];
        sum[1][v] += g * on[v];
        if (place + 1 < size) sum[2][v] += g * behind[v];
        before[v] = on[v];
        on[v] = behind[v];
      }
    }
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) {
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k) store(target + k * tap + d + v * kLanes<Acc>, sum[k][v]);
    }
  }

  // kVectors vectors of channels from `d` on; the last vector may be less than whole.
  template <int kVectors, bool kPartial>
  VTFAST_INLINE void add_channels(const WindowLine<T, Acc>& line, const WindowTaps& tap, int64_t d, Acc* target) {
    const int64_t stride = order_.line.input * p_.x.token_stride;
    const int64_t first = tap.first_inside(), last = tap.last_inside(order_.line.axis.pooled);
    const T* x = line.tokens + (tap.taps->offset + first * tap.step) * stride + d;
    const Acc* gradient = d_line_ + first * padded_ + d;
    Vector<Acc> sum[kVectors];
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) sum[v] = load(target + d + v * kLanes<Acc>);
    for (int64_t place = first; place < last; ++place, x += tap.step * stride, gradient += padded_) {
#pragma GCC unroll 3
      for (int v = 0; v < kVectors; ++v) {
        sum[v] += load(gradient + v * kLanes<Acc>) * fetch<kPartial>(x + v * kLanes<Acc>, d);
      }
    }
#pragma GCC unroll 3
    for (int v = 0; v < kVectors; ++v) store(target + d + v * kLanes<Acc>, sum[v]);
  }

  const PoolTokensParams& p_;
  const PoolTokensGradients& gradients_;
  Acc* d_pooled_;
  Acc* winners_;
  int64_t padded_;
  PoolOrder order_;
  WindowWeights<Acc> weights_;
  HeadNorm<Acc> norm_;
  PoolLine<T, Pool> line_;
  Window<T> window_;
  Acc* d_row_;   // [padded]
  Acc* d_line_;  // [places, padded], the gradients of what was pooled along the line
};

// The first pass: d_pooled, winners and the sums of every chunk.
template <class T, class Pool>
void differentiate_outputs(const PoolTokensParams& p, const PoolTokensGradients& gradients, AccOf<T>* d_pooled,
                           AccOf<T>* winners, AccOf<T>* sums) {
  using Acc = AccOf<T>;
  using Gradient = PooledGradient<T, Pool>;
  const Chunks chunks(p);
  const Workspace<Acc> sizes(p);
  parallel_for(chunks.count, [&](int64_t begin, int64_t end) {
    Scratch& scratch = Scratch::of_this_thread();
    scratch.reserve(Gradient::scratch_bytes(p));
    Gradient gradient(p, gradients, d_pooled, winners, scratch);
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const ChunkSums<Acc> chunk_sums(p, round_up(p.head_dim, kLanes<Acc>), sums + chunk * sizes.sums);
      const int64_t first = chunk * chunks.lines_per_chunk;
      const int64_t last = std::min(first + chunks.lines_per_chunk, chunks.lines);
      for (int64_t i = first; i < last; ++i) gradient.run(i, chunk_sums);
    }
  });
}

// Tokens that are normed but not pooled, the first `count` of every clip, one chunk of sums a clip.
template <class T>
void differentiate_tokens(const PoolTokensParams& p, const PoolTokensGradients& gradients, int64_t count,
                          int64_t out_tokens, AccOf<T>* sums) {
  using Acc = AccOf<T>;
  const Workspace<Acc> sizes(p);
  const int64_t padded = round_up(p.head_dim, kLanes<Acc>);
  parallel_for(p.batch, [&](int64_t begin, int64_t end) {
    Scratch& scratch = Scratch::of_this_thread();
    scratch.reserve(HeadNorm<Acc>::scratch_bytes(p.head_dim) + 2 * Scratch::bytes_of<Acc>(padded));
    const HeadNorm<Acc> norm(p.norm_weight, p.norm_bias, p.head_dim, p.eps, scratch);
    Acc *row = scratch.take<Acc>(padded), *d_row = scratch.take<Acc>(padded);
    for (int64_t batch = begin; batch < end; ++batch) {
      const ChunkSums<Acc> chunk_sums(p, padded, sums + batch * sizes.sums);
      for (int64_t token = 0; token < count; ++token) {
        const T* x = static_cast<const T*>(p.x.data) + batch * p.x.batch_stride + token * p.x.token_stride;
        const T* d_out = static_cast<const T*>(gradients.grad_out) + (batch * out_tokens + token) * p.channels();
        T* d_x = static_cast<T*>(gradients.d_x.data) + batch * gradients.d_x.batch_stride +
                 token * gradients.d_x.token_stride;
        for (int64_t head = 0; head < p.channels(); head += p.head_dim) {
          load_row(x + head, p.head_dim, padded, Acc(1), row);
          load_row(d_out + head, p.head_dim, padded, Acc(1), d_row);
          norm.differentiate(row, d_row, chunk_sums.norm_weight, chunk_sums.norm_bias);
          store_row(row, p.head_dim, Acc(1), d_x + head);
        }
      }
    }
  });
}

// The second pass: the gradient of the grid's tokens.
template <class T>
void gather_inputs(const PoolTokensParams& p, const PoolTokensGradients& gradients, const AccOf<T>* d_pooled,
                   const AccOf<T>* winners) {
  using Acc = AccOf<T>;
  const PoolOrder order(p);
  const int64_t channels = p.channels(), padded = round_up(p.head_dim, kLanes<Acc>);
  parallel_for(HeadLine::num_inputs(p, order), [&](int64_t begin, int64_t end) {
    using Line = PoolLine<Acc, WeightedSum<Acc>>;
    Scratch& scratch = Scratch::of_this_thread();
    scratch.reserve(WindowWeights<Acc>::scratch_bytes(p) + Line::scratch_bytes(padded) +
                    Scratch::bytes_of<Acc>(padded));
    const WindowWeights<Acc> weights(p, scratch);
    Line line(p.head_dim, padded, order.line.output * channels, order.inner.output * channels, scratch);
    Acc* row = scratch.take<Acc>(padded);
    TransposedWindow<Acc> window(p, order);
    const int64_t size = order.line.axis.size, step = order.line.axis.stride;
    const int64_t stride = order.line.input * gradients.d_x.token_stride;
    const int64_t to_next = order.inner.input * gradients.d_x.token_stride;
    for (int64_t i = begin; i < end; ++i) {
      const HeadLine at = HeadLine::of_inputs(p, order, i);
      const Acc* outputs = d_pooled + at.batch * p.num_outputs() * channels + at.head * p.head_dim;
      const int64_t token = p.num_prefix + at.outer * order.outer.input + at.inner * order.inner.input;
      T* d_x = static_cast<T*>(gradients.d_x.data) + at.batch * gradients.d_x.batch_stride +
               token * gradients.d_x.token_stride + at.head * p.head_dim;
      const auto& lines = window.lines(outputs, weights, at);
      for (int64_t first = 0; first < std::min(step, size); ++first) {
        const WindowTaps taps = window.taps(first);
        const int64_t places = (size - first + step - 1) / step;
        const auto emit = [&](int64_t place, const Acc* sum) {
          T* target = d_x + (first + place * step) * stride;
          store_row(sum, p.head_dim, Acc(1), target);
          prefetch_row(target + to_next, p.head_dim);
        };
        if (winners == nullptr) {
          line.run(lines, taps, places, emit);
          continue;
        }
        for (int64_t place = 0; place < places; ++place) {
          gather_won(lines, taps, place, order.line.output * channels, winners - d_pooled, p.head_dim, row);
          emit(place, row);
        }
      }
    }
  });
}

// The sums of the chunks, in their order -> the gradients of weights and norm.
template <class Acc>
void sum_chunks(const PoolTokensParams& p, const PoolTokensGradients& gradients, const Acc* sums, int64_t num_chunks) {
  const int64_t padded = round_up(p.head_dim, kLanes<Acc>), taps = p.num_taps(), size = Workspace<Acc>(p).sums;
  const auto sum_of = [&](int64_t row, int64_t d) {
    Acc sum = 0;
    for (int64_t chunk = 0; chunk < num_chunks; ++chunk) sum += sums[chunk * size + row * padded + d];
    return sum;
  };
  parallel_for(p.head_dim, [&](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d) {
      if (gradients.d_weight != nullptr) {
        Acc* target = static_cast<Acc*>(gradients.d_weight) + d * taps;
        for (int64_t tap = 0; tap < taps; ++tap) target[tap] = sum_of(tap, d);
      }
      if (gradients.d_norm_weight != nullptr) static_cast<Acc*>(gradients.d_norm_weight)[d] = sum_of(taps, d);
      if (gradients.d_norm_bias != nullptr) static_cast<Acc*>(gradients.d_norm_bias)[d] = sum_of(taps + 1, d);
    }
  });
}

template <class T>
void run(const PoolTokensParams& p, const PoolTokensGradients& gradients, void* workspace) {
  using Acc = AccOf<T>;
  const Workspace<Acc> sizes(p);
  auto* d_pooled = static_cast<Acc*>(workspace);
  Acc *winners = d_pooled + sizes.pooled, *sums = winners + sizes.winners;
  const int64_t num_chunks = Chunks(p).count;
  if (p.mode == PoolMode::kMaximum) {
    differentiate_outputs<T, Largest<Acc>>(p, gradients, d_pooled, winners, sums);
    gather_inputs<T>(p, gradients, d_pooled, winners);
  } else {
    differentiate_outputs<T, WeightedSum<Acc>>(p, gradients, d_pooled, nullptr, sums);
    gather_inputs<T>(p, gradients, d_pooled, nullptr);
  }
  if (p.num_prefix > 0) {
    differentiate_tokens<T>(p, gradients, p.num_prefix, p.num_prefix + p.num_outputs(), sums + num_chunks * sizes.sums);
  }
  sum_chunks(p, gradients, sums, sizes.num_chunks);
}

// A part that is left as it is.
template <class T>
void copy_tokens(const PoolTokensParams& p, const PoolTokensGradients& gradients) {
  const int64_t tokens = p.num_prefix + p.num_inputs(), channels = p.channels();
  parallel_for(p.batch * tokens, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* d_x = static_cast<T*>(gradients.d_x.data) + i / tokens * gradients.d_x.batch_stride +
               i % tokens * gradients.d_x.token_stride;
      std::memcpy(d_x, static_cast<const T*>(gradients.grad_out) + i * channels, channels * sizeof(T));
    }
  });
}

template <class T>
void run_or_copy(const PoolTokensParams& p, const PoolTokensGradients& gradients, void* workspace) {
  p.mode == PoolMode::kNone ? copy_tokens<T>(p, gradients) : run<T>(p, gradients, workspace);
}

}  // namespace

int64_t pool_tokens_workspace_size(const PoolTokensParams& p) {
  if (p.mode == PoolMode::kNone) return 0;
  return p.data_type == DataType::kFloat64 ? Workspace<double>(p).size() : Workspace<float>(p).size();
}

void pool_tokens_backward(const PoolTokensParams& params, const PoolTokensGradients& gradients, void* workspace) {
  with_data_type(params.data_type, [&]<class T>() { return run_or_copy<T>(params, gradients, workspace); });
}

}  // namespace vtfast::cpu
