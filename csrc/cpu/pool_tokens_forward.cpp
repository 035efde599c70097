#include "head_norm.h"
#include "parallel.h"
#include "pool_tokens.h"
#include "pool_window.h"
#include "with_data_type.h"

namespace vtfast::cpu {
namespace {

template <class T, class Pool>
void pool_lines(const PoolTokensParams& p) {
  using Acc = AccOf<T>;
  const PoolOrder order(p);
  const int64_t tokens = p.num_prefix + p.num_outputs(), channels = p.channels();
  parallel_for(HeadLine::num_outputs(p, order), [&](int64_t begin, int64_t end) {
    const int64_t padded = round_up(p.head_dim, kLanes<Acc>);
    Scratch& scratch = Scratch::of_this_thread();
    scratch.reserve(WindowWeights<Acc>::scratch_bytes(p) + HeadNorm<Acc>::scratch_bytes(p.head_dim) +
                    PoolLine<T, Pool>::scratch_bytes(padded));
    const WindowWeights<Acc> weights(p, scratch);
    const HeadNorm<Acc> norm(p.norm_weight, p.norm_bias, p.head_dim, p.eps, scratch);
    PoolLine<T, Pool> line(p.head_dim, padded, order.line.input * p.x.token_stride,
                           order.inner.axis.stride * order.inner.input * p.x.token_stride, scratch);
    Window<T> window(p, order);
    for (int64_t i = begin; i < end; ++i) {
      const HeadLine at = HeadLine::of_outputs(p, order, i);
      const T* grid = static_cast<const T*>(p.x.data) + at.batch * p.x.batch_stride + p.num_prefix * p.x.token_stride +
                      at.head * p.head_dim;
      const int64_t first = at.outer * order.outer.output + at.inner * order.inner.output;
      T* out = static_cast<T*>(p.out) + (at.batch * tokens + p.num_prefix + first) * channels + at.head * p.head_dim;
      line.run(window.lines(grid, weights, at), window.taps(), order.line.axis.pooled, [&](int64_t place, Acc* row) {
        norm.apply(row);
        store_row(row, p.head_dim, Acc(1), out + place * order.line.output * channels);
      });
    }
  });
}

// The first `count` tokens of every clip, normed but not pooled.
template <class T>
void norm_tokens(const PoolTokensParams& p, int64_t count, int64_t out_tokens) {
  using Acc = AccOf<T>;
  parallel_for(p.batch * count, [&](int64_t begin, int64_t end) {
    const int64_t padded = round_up(p.head_dim, kLanes<Acc>);
    Scratch& scratch = Scratch::of_this_thread();
    scratch.reserve(HeadNorm<Acc>::scratch_bytes(p.head_dim) + Scratch::bytes_of<Acc>(padded));
    const HeadNorm<Acc> norm(p.norm_weight, p.norm_bias, p.head_dim, p.eps, scratch);
    Acc* row = scratch.take<Acc>(padded);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t batch = i / count, token = i % count;
      const T* x = static_cast<const T*>(p.x.data) + batch * p.x.batch_stride + token * p.x.token_stride;
      T* out = static_cast<T*>(p.out) + (batch * out_tokens + token) * p.channels();
      if (!norm.present()) {
        std::memcpy(out, x, p.channels() * sizeof(T));
        continue;
      }
      for (int64_t head = 0; head < p.channels(); head += p.head_dim) {
        load_row(x + head, p.head_dim, padded, Acc(1), row);
        norm.apply(row);
        store_row(row, p.head_dim, Acc(1), out + head);
      }
    }
  });
}

template <class T>
void run(const PoolTokensParams& p) {
  using Acc = AccOf<T>;
  if (p.mode == PoolMode::kNone) return norm_tokens<T>(p, p.num_prefix + p.num_inputs(), p.num_prefix + p.num_inputs());
  if (p.num_prefix > 0) norm_tokens<T>(p, p.num_prefix, p.num_prefix + p.num_outputs());
  if (p.mode == PoolMode::kMaximum) {
    pool_lines<T, Largest<Acc>>(p);
  } else {
    pool_lines<T, WeightedSum<Acc>>(p);
  }
}

}  // namespace

void pool_tokens_forward(const PoolTokensParams& params) {
  with_data_type(params.data_type, [&]<class T>() { return run<T>(params); });
}

}  // namespace vtfast::cpu
