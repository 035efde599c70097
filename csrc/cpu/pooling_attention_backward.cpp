#include "backward_tiles.h"
#include "parallel.h"
#include "pooled_head.h"
#include "pooling_attention.h"
#include "with_data_type.h"

namespace vtfast::cpu {
namespace {

// How the work is cut up: for each head of each clip, chunks of consecutive queries. The sums over queries follow this
// cut, so it depends on sizes alone, never on the number of threads.
struct Chunks {
  int64_t heads;  // of all clips
  int64_t rows_per_chunk;
  int64_t per_head;

  explicit Chunks(const PoolingAttentionParams& p) : heads(p.batch * p.num_heads) {
    // Enough to keep many cores busy, but so few that packing the keys and summing the parts do not matter.
    constexpr int64_t kWanted = 32;
    const int64_t fewest_rows = std::max<int64_t>(256, p.num_keys() / 2);
    const int64_t most = std::max<int64_t>(1, p.num_queries() / fewest_rows);
    const int64_t wanted = std::min(most, (kWanted + heads - 1) / heads);
    rows_per_chunk = (p.num_queries() + wanted - 1) / wanted;
    per_head = (p.num_queries() + rows_per_chunk - 1) / rows_per_chunk;
  }

  int64_t count() const { return heads * per_head; }
};

// What a chunk leaves in the workspace, in elements: its part of the gradients of k, v and the tables.
template <class Acc>
struct Part {
  int64_t columns;  // [num_keys, head_dim] of k, and as many of v
  int64_t tables;   // [rows of the tables, padded]

  explicit Part(const PoolingAttentionParams& p)
      : columns(p.num_keys() * p.head_dim),
        tables(RelativeBias<Acc>::present(p) ? RelativeBias<Acc>::num_rows(p) * RelativeBias<Acc>::padded(p) : 0) {}

  int64_t size() const { return 2 * columns + tables; }
};

template <class Dot, class T>
class PoolingBackward {
 public:
  using Acc = typename Dot::Acc;

  static size_t scratch_bytes(const PoolingAttentionParams& p) {
    const int64_t columns = PooledHead<Dot, T>::max_columns(p), padded = HeadLayout<Dot>(p.head_dim).padded;
    return ScorePanels<Dot>::scratch_bytes(p.head_dim) + BackwardTiles<Dot>::scratch_bytes(p.head_dim, columns) +
           PooledHead<Dot, T>::scratch_bytes(p) + 2 * Scratch::bytes_of<Acc>(padded) +
           Scratch::bytes_of<Acc>(kMaxTileRows * padded) + Scratch::bytes_of<Acc>(columns + kLanes<Acc>);
  }

  PoolingBackward(const PoolingAttentionParams& p, const PoolingAttentionGradients& gradients, Scratch& scratch)
      : p_(p),
        gradients_(gradients),
        panels_(p.head_dim, scratch),
        tiles_(panels_, p.scale, PooledHead<Dot, T>::max_columns(p), scratch),
        head_(p, tiles_.unit(), scratch),
        padded_(panels_.head().padded),
        query_(scratch.take<Acc>(padded_)),
        row_(scratch.take<Acc>(padded_)),
        of_positions_(scratch.take<Acc>(kMaxTileRows * padded_)),
        d_scores_(scratch.take<Acc>(PooledHead<Dot, T>::max_columns(p) + kLanes<Acc>)) {
    panels_.begin(p.num_keys());
  }

  // Queries [first, last) of a head; `part` takes what they contribute to the other gradients.
  void run(int64_t batch, int64_t head, int64_t first, int64_t last, Acc* part) {
    const Part<Acc> sizes(p_);
    first_row_ = first;
    d_tables_ = part + 2 * sizes.columns;
    std::fill_n(d_tables_, sizes.tables, Acc(0));
    head_.select(batch, head);
    tiles_.take_columns([this](int64_t c) { return head_.key(c); }, [this](int64_t c) { return head_.value(c); });
    tiles_.run(last - first, *this);
    for (int64_t c = 0; c < p_.num_keys(); ++c) {
      Acc* target = part + head_.token(c) * p_.head_dim;
      store_row(tiles_.d_keys() + c * padded_, p_.head_dim, tiles_.d_keys_factor(), target);
      store_row(tiles_.d_values() + c * padded_, p_.head_dim, Acc(1), target + sizes.columns);
    }
  }

 private:
  friend class BackwardTiles<Dot>;

  const T* grad_out(int64_t row) const {
    return static_cast<const T*>(gradients_.grad_out) + head_.index(p_.num_queries(), first_row_ + row);
  }

  // The rows of the chunk as BackwardTiles asks for them.
  void load(int64_t row, Acc factor, Acc* query, Acc* d_out) {
    load_row(head_.query(first_row_ + row), p_.head_dim, padded_, factor, query);
    load_row(grad_out(row), p_.head_dim, padded_, Acc(1), d_out);
  }

  void set_bias(int m, int64_t row) { head_.set_bias(m, first_row_ + row); }
  const Acc* const* bias(int64_t) const { return head_.bias(); }
  const Acc* penalties(int64_t) const { return nullptr; }
  Acc lse(int64_t row) const { return static_cast<const Acc*>(p_.lse)[head_.lse(first_row_ + row)]; }
  void between() {}

  // The gradients of the relative positions, and what they contribute to that of the query.
  void take_d_scores(int64_t row, const ScoreRow<Acc>& d_scores) {
    RelativeBias<Acc>* relative = head_.relative();
    if (relative == nullptr || first_row_ + row < p_.num_prefix) return;
    d_scores.for_each_vector([&](const Acc* d, int64_t column) { cpu::store(d_scores_ + column, cpu::load(d)); });
    load_row(head_.query(first_row_ + row), p_.head_dim, padded_, Acc(1), query_);
    relative->select(first_row_ + row - p_.num_prefix);
    std::fill_n(of_positions(row), padded_, Acc(0));
    relative->differentiate(query_, d_scores_, of_positions(row), d_tables_);
  }

  void store(int64_t row, const Acc* d_query) {
    load_row(d_query, padded_, padded_, static_cast<Acc>(p_.scale), row_);
    if (head_.relative() != nullptr && first_row_ + row >= p_.num_prefix) add(of_positions(row));
    if (head_.is_residual(first_row_ + row)) {
      load_row(grad_out(row), p_.head_dim, padded_, Acc(1), query_);
      add(query_);
    }
    T* target = static_cast<T*>(gradients_.d_q) + head_.index(p_.num_queries(), first_row_ + row);
    store_row(row_, p_.head_dim, Acc(1), target);
  }

  void add(const Acc* term) {
    for (int64_t d = 0; d < padded_; d += kLanes<Acc>) cpu::store(row_ + d, cpu::load(row_ + d) + cpu::load(term + d));
  }

  Acc* of_positions(int64_t row) { return of_positions_ + row % kMaxTileRows * padded_; }

  const PoolingAttentionParams& p_;
  const PoolingAttentionGradients& gradients_;
  ScorePanels<Dot> panels_;
  BackwardTiles<Dot> tiles_;
  PooledHead<Dot, T> head_;
  int64_t padded_;
  Acc* query_;         // [padded]
  Acc* row_;           // [padded]
  Acc* of_positions_;  // [tile rows, padded], the relative positions' part of d_query
  Acc* d_scores_;      // [columns], of one row
  Acc* d_tables_ = nullptr;
  int64_t first_row_ = 0;
};

// d_k and d_v = the sum of the parts, in their order.
template <class T>
void sum_columns(const PoolingAttentionParams& p, const PoolingAttentionGradients& gradients, const AccOf<T>* parts) {
  using Acc = AccOf<T>;
  const Chunks chunks(p);
  const Part<Acc> part(p);
  const int64_t num_keys = p.num_keys();
  parallel_for(chunks.heads * 2 * num_keys, [&](int64_t begin, int64_t end) {
    Scratch& scratch = Scratch::of_this_thread();
    scratch.reserve(Scratch::bytes_of<Acc>(p.head_dim));
    Acc* sum = scratch.take<Acc>(p.head_dim);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t item = i / (2 * num_keys), row = i % (2 * num_keys);
      const Acc* source = parts + item * chunks.per_head * part.size() + row * p.head_dim;
      std::fill_n(sum, p.head_dim, Acc(0));
      for (int64_t chunk = 0; chunk < chunks.per_head; ++chunk, source += part.size()) {
        for (int64_t d = 0; d < p.head_dim; ++d) sum[d] += source[d];
      }
      void* target = row < num_keys ? gradients.d_k : gradients.d_v;
      const int64_t token = item / p.num_heads * num_keys + row % num_keys;
      store_row(sum, p.head_dim, Acc(1),
                static_cast<T*>(target) + token * p.channels() + item % p.num_heads * p.head_dim);
    }
  });
}

// The gradients of the tables = the sum of the parts, in their order.
template <class Acc>
void sum_tables(const PoolingAttentionParams& p, const PoolingAttentionGradients& gradients, const Acc* parts) {
  const int64_t padded = RelativeBias<Acc>::padded(p), num_parts = Chunks(p).count();
  const Part<Acc> part(p);
  parts += 2 * part.columns;
  for (int i = 0; i < 3; ++i) {
    const int64_t num_rows = p.axes[i].num_rows();
    auto* target = static_cast<Acc*>(gradients.d_rel_pos[i]);
    if (target != nullptr) {
      parallel_for(num_rows, [&](int64_t begin, int64_t end) {
        std::fill(target + begin * p.head_dim, target + end * p.head_dim, Acc(0));
        for (int64_t chunk = 0; chunk < num_parts; ++chunk) {
          const Acc* source = parts + chunk * part.size();
          for (int64_t row = begin; row < end; ++row) {
            for (int64_t d = 0; d < p.head_dim; ++d) target[row * p.head_dim + d] += source[row * padded + d];
          }
        }
      });
    }
    parts += num_rows * padded;
  }
}

template <class Dot, class T>
void run(const PoolingAttentionParams& p, const PoolingAttentionGradients& gradients, void* workspace) {
  using Acc = typename Dot::Acc;
  using Engine = PoolingBackward<Dot, T>;
  const Chunks chunks(p);
  const Part<Acc> part(p);
  auto* parts = static_cast<Acc*>(workspace);
  parallel_for(chunks.count(), [&](int64_t begin, int64_t end) {
    Scratch& scratch = Scratch::of_this_thread();
    scratch.reserve(Engine::scratch_bytes(p));
    Engine engine(p, gradients, scratch);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t item = i / chunks.per_head, first = i % chunks.per_head * chunks.rows_per_chunk;
      const int64_t last = std::min(first + chunks.rows_per_chunk, p.num_queries());
      engine.run(item / p.num_heads, item % p.num_heads, first, last, parts + i * part.size());
    }
  });
  sum_columns<T>(p, gradients, parts);
  sum_tables<Acc>(p, gradients, parts);
}

void run_bfloat16(const PoolingAttentionParams& p, const PoolingAttentionGradients& gradients, void* workspace) {
#if defined(__AVX512BF16__)
  // Relative positions are divided by the scale, see ForwardTiles::unit.
  if (p.scale > 1e-6 && p.scale < 1e6) return run<BFloat16Dot, BFloat16>(p, gradients, workspace);
#endif
  return run<FusedDot<float>, BFloat16>(p, gradients, workspace);
}

}  // namespace

int64_t pooling_attention_workspace_size(const PoolingAttentionParams& p) {
  const int64_t size = p.data_type == DataType::kFloat64 ? Part<double>(p).size() : Part<float>(p).size();
  return Chunks(p).count() * size;
}

void pooling_attention_backward(const PoolingAttentionParams& params, const PoolingAttentionGradients& gradients,
                                void* workspace) {
  with_data_type(params.data_type, [&]<class T>() {
    if constexpr (std::is_same_v<T, BFloat16>) {
      run_bfloat16(params, gradients, workspace);
    } else {
      run<FusedDot<AccOf<T>>, T>(params, gradients, workspace);
    }
  });
}

}  // namespace vtfast::cpu
