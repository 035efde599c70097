#include "forward_tiles.h"
#include "parallel.h"
#include "pooled_head.h"
#include "pooling_attention.h"
#include "with_data_type.h"

namespace vtfast::cpu {
namespace {

template <class Dot, class T>
class PoolingForward {
 public:
  using Acc = typename Dot::Acc;

  static size_t scratch_bytes(const PoolingAttentionParams& p) {
    return ScorePanels<Dot>::scratch_bytes(p.head_dim) + PooledHead<Dot, T>::scratch_bytes(p) +
           ForwardTiles<Dot, T>::scratch_bytes(p.head_dim, PooledHead<Dot, T>::max_columns(p)) +
           Scratch::bytes_of<Acc>(HeadLayout<Dot>(p.head_dim).padded);
  }

  PoolingForward(const PoolingAttentionParams& p, Scratch& scratch)
      : p_(p),
        panels_(p.head_dim, scratch),
        tiles_(panels_, p.scale, PooledHead<Dot, T>::max_columns(p), scratch),
        head_(p, tiles_.unit(), scratch),
        row_(scratch.take<Acc>(panels_.head().padded)) {
    panels_.begin(p.num_keys());
  }

  void select(int64_t batch, int64_t head) {
    head_.select(batch, head);
    tiles_.take_columns([this](int64_t c) { return head_.key(c); }, [this](int64_t c) { return head_.value(c); });
  }

  // The tile of queries from `first_row` on.
  template <int kRows>
  __attribute__((noinline)) void attend(int64_t first_row) {
    const int64_t num_rows = p_.num_queries();
    const auto clamped = [&](int64_t m) { return std::min(first_row + m, num_rows - 1); };
    for (int m = 0; m < kRows; ++m) head_.set_bias(m, clamped(m));
    const TileStatistics<Acc, kRows> statistics = tiles_.template attend<kRows>(
        [&](int m) { return head_.query(clamped(m)); }, [this](int64_t) { return head_.bias(); },
        [](int) { return static_cast<const Acc*>(nullptr); }, [] {});
    for (int m = 0; m < kRows && first_row + m < num_rows; ++m) {
      static_cast<Acc*>(p_.lse)[head_.lse(first_row + m)] = statistics.lse[m];
      write_row(first_row + m, tiles_.result(m), statistics.inverse_sum[m]);
    }
  }

 private:
  void write_row(int64_t row, const Acc* result, Acc inverse_sum) {
    T* out = static_cast<T*>(p_.out) + head_.index(p_.num_queries(), row);
    if (!head_.is_residual(row)) return store_row(result, p_.head_dim, inverse_sum, out);
    const int64_t padded = panels_.head().padded;
    load_row(head_.query(row), p_.head_dim, padded, Acc(1), row_);
    const Vector<Acc> factor = broadcast(inverse_sum);
    for (int64_t d = 0; d < padded; d += kLanes<Acc>) store(row_ + d, load(result + d) * factor + load(row_ + d));
    store_row(row_, p_.head_dim, Acc(1), out);
  }

  const PoolingAttentionParams& p_;
  ScorePanels<Dot> panels_;
  ForwardTiles<Dot, T> tiles_;
  PooledHead<Dot, T> head_;
  Acc* row_;  // [padded]
};

template <class Dot, class T>
void run(const PoolingAttentionParams& p) {
  using Engine = PoolingForward<Dot, T>;
  const int64_t num_rows = p.num_queries();
  ForwardTiles<Dot, T>::with_rows(num_rows, [&]<int kRows>() {
    const int64_t tiles = (num_rows + kRows - 1) / kRows;
    parallel_for(p.batch * p.num_heads * tiles, [&](int64_t begin, int64_t end) {
      Scratch& scratch = Scratch::of_this_thread();
      scratch.reserve(Engine::scratch_bytes(p));
      Engine engine(p, scratch);
      [[maybe_unused]] typename Dot::Session session;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t item = i / tiles;
        if (i == begin || i % tiles == 0) engine.select(item / p.num_heads, item % p.num_heads);
        engine.template attend<kRows>(i % tiles * kRows);
      }
    });
  });
}

void run_bfloat16(const PoolingAttentionParams& p) {
#if defined(__AMX_BF16__)
  return run<MatrixUnitDot, BFloat16>(p);
#else
#if defined(__AVX512BF16__)
  // Relative positions are divided by the scale, see ForwardTiles::unit.
  if (p.scale > 1e-6 && p.scale < 1e6) return run<BFloat16Dot, BFloat16>(p);
#endif
  return run<FusedDot<float>, BFloat16>(p);
#endif
}

}  // namespace

void pooling_attention_forward(const PoolingAttentionParams& params) {
  with_data_type(params.data_type, [&]<class T>() {
    if constexpr (std::is_same_v<T, BFloat16>) {
      run_bfloat16(params);
    } else {
      run<FusedDot<AccOf<T>>, T>(params);
    }
  });
}

}  // namespace vtfast::cpu
