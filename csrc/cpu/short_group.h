// Products and masks of groups of a few tokens. Nothing is packed: queries lie in the lanes of vectors, one vector a
// key, so that the softmax of all queries runs down the keys without a horizontal step.
#pragma once

#include "group_pair.h"
#include "softmax.h"
#include "tile.h"

namespace vtfast::cpu {

// Rows and columns of the largest group that counts as short: beyond it, packing pays.
inline constexpr int64_t kMaxShort = 48;

inline bool is_short(const GridAttentionParams& p) {
  const bool with_prefix = p.prefix_keys || p.prefix_queries == PrefixQueries::kMean;
  return p.bias_table == nullptr && p.geometry.num_slots() + (with_prefix ? p.geometry.num_prefix : 0) <= kMaxShort;
}

// The members of a short group and where each lies: all heads of a token are neighbours, so a head is an offset.
template <class T>
class ShortMembers {
 public:
  static size_t scratch_bytes(const GridAttentionParams& p) {
    return Group::scratch_bytes(p) + Scratch::bytes_of<T>(3 * p.channels());
  }

  ShortMembers(const GridAttentionParams& p, Scratch& scratch)
      : p_(p), group_(p, scratch), padding_(scratch.take<T>(3 * p.channels())) {
    std::fill_n(padding_, 3 * p.channels(), T{});
    if (p.pad_qkv != nullptr) std::copy_n(static_cast<const T*>(p.pad_qkv), 3 * p.channels(), padding_);
  }

  const Group& group() const { return group_; }
  int64_t batch() const { return batch_; }

  void gather(int64_t batch, int64_t index) {
    if (!group_.gather(batch, index)) return;
    batch_ = batch;
    const T* clip = static_cast<const T*>(p_.qkv) + batch * p_.num_tokens() * 3 * p_.channels();
    for (int64_t c = 0; c < group_.num_columns; ++c) {
      const int64_t token = group_.column_token[c];
      columns_[c] = token == Group::kPadding ? padding_ : clip + token * 3 * p_.channels();
    }
    for (int64_t r = 0; r < group_.num_rows; ++r) rows_[r] = clip + group_.token_of_row(r) * 3 * p_.channels();
  }

  // Fetches one part, of as many as there are heads, of the packed tokens into the cache.
  void fetch(int64_t part) const { fetch_tokens(columns_, group_.num_columns, 3 * p_.channels(), part); }

  // The same of other tensors: the rows, of all heads, that `tokens` name. Whole tokens in the order of memory: so the
  // processor's own prefetching helps, which scattered heads would not set off.
  void fetch_tokens(const T* const* tokens, int64_t count, int64_t channels, int64_t part) const {
    constexpr int64_t kLine = 64;
    const int64_t lines = (channels * sizeof(T) + kLine - 1) / kLine;
    int64_t i = lines * count * part / p_.num_heads;
    const int64_t end = lines * count * (part + 1) / p_.num_heads;
    for (int64_t line = i % lines; i < end; line = 0) {
      const char* token = reinterpret_cast<const char*>(tokens[i / lines]);
      for (; line < lines && i < end; ++line, ++i) prefetch(token + line * kLine);
    }
  }

  // Row `which` (0 q, 1 k, 2 v) of a query or a key.
  const T* query(int64_t row, int64_t head) const { return rows_[row] + head * p_.head_dim; }
  const T* column(int64_t column, int64_t which, int64_t head) const {
    return columns_[column] + which * p_.channels() + head * p_.head_dim;
  }

 private:
  const GridAttentionParams& p_;
  Group group_;
  int64_t batch_ = 0;
  T* padding_;  // [3 * C], the projection of a zero token
  const T* columns_[kMaxShort];
  const T* rows_[kMaxShort];
};

// Rows of one head, [panel][kMaxShort][kPanel]: a row is cut into panels, whose rows lie together.
template <class Acc>
class ShortRows {
 public:
  static constexpr int64_t kPanelStride = kMaxShort * kPanel<Acc>;

  static int64_t num_panels(int64_t head_dim) { return (head_dim + kPanel<Acc> - 1) / kPanel<Acc>; }
  static size_t scratch_bytes(int64_t head_dim) { return Scratch::bytes_of<Acc>(num_panels(head_dim) * kPanelStride); }

  ShortRows(int64_t head_dim, Scratch& scratch)
      : head_dim_(head_dim), panels_(scratch.take<Acc>(num_panels(head_dim) * kPanelStride)) {
    std::fill_n(panels_, num_panels(head_dim) * kPanelStride, Acc(0));
  }

  template <class T>
  VTFAST_INLINE void load(int64_t index, const T* source, Acc scale) {
    const Vector<Acc> factor = broadcast(scale);
    Acc* target = panels_ + index * kPanel<Acc>;
    int64_t d = 0;
    for (; d + kPanel<Acc> <= head_dim_; d += kPanel<Acc>, target += kPanelStride) {
      store(target, load_as_acc(source + d) * factor);
      store(target + kLanes<Acc>, load_as_acc(source + d + kLanes<Acc>) * factor);
    }
    for (; d < head_dim_; d += kLanes<Acc>, target += kLanes<Acc>) {
      const int64_t left = head_dim_ - d;
      const bool whole = left >= kLanes<Acc>;
      store(target, (whole ? load_as_acc(source + d) : load_partial_as_acc(source + d, left)) * factor);
    }
  }

  // products[c][r] = row r . other's row c, for rows in whole vectors.
  void multiply(int64_t rows, const ShortRows& other, int64_t columns, Acc* products) const {
    constexpr int kHalf = kLanes<Acc> / 2;
    for (int64_t r = 0; r < rows; r += kLanes<Acc>) {
      if (rows - r <= kHalf) {
        multiply_block<kHalf>(r, other, columns, products + r);
      } else {
        multiply_block<kLanes<Acc>>(r, other, columns, products + r);
      }
    }
  }

  // The weighted sums of `depth` rows whose weight, for result m and row i, is weights[m * kResult + i * kRow]:
  // sink(m, d, sum) for each vector of each of `count` results.
  template <int kResult, int kRow, class Sink>
  VTFAST_INLINE void combine(const Acc* weights, int64_t count, int64_t depth, Sink sink) const {
    Acc sums[kColumnTileRows * kPanel<Acc>];
    for (int64_t m = 0; m < count; m += kColumnTileRows) {
      const int64_t rows = std::min<int64_t>(count - m, kColumnTileRows);
      for (int64_t d = 0; d < head_dim_; d += kPanel<Acc>) {
        combine_tile<kResult, kRow>(weights + m * kResult, panels_ + d / kPanel<Acc> * kPanelStride, depth, sums);
        for (int64_t i = 0; i < rows; ++i) {
          const Acc* row = sums + i * kPanel<Acc>;
          sink(m + i, d, vtfast::cpu::load(row));
          if (d + kLanes<Acc> < head_dim_) sink(m + i, d + kLanes<Acc>, vtfast::cpu::load(row + kLanes<Acc>));
        }
      }
    }
  }

 private:
  // Not inlined: on its own, the compiler keeps the whole tile in registers.
  template <int kResult, int kRow>
  __attribute__((noinline)) static void combine_tile(const Acc* weights, const Acc* rows, int64_t depth, Acc* sums) {
    Tile<FusedDot<Acc>, kColumnTileRows, 2> tile;
    tile.fill([](int, int) { return Vector<Acc>{}; });
    tile.template multiply_add<kResult, kRow>(weights, rows, kPanel<Acc>, depth);
    tile.drain([&](int m, int c, Vector<Acc> sum) { store(sums + m * kPanel<Acc> + c, sum); });
  }

  template <int kRows>
  __attribute__((noinline)) void multiply_block(int64_t first, const ShortRows& other, int64_t columns,
                                                Acc* products) const {
    for (int64_t c = 0; c < columns; ++c) {
      const Acc *rows = panels_ + first * kPanel<Acc>, *column = other.panels_ + c * kPanel<Acc>;
      Vector<Acc> sums[kRows] = {};
      for (int64_t left = num_panels(head_dim_); left > 0; --left, rows += kPanelStride, column += kPanelStride) {
#pragma GCC unroll 2
        for (int v = 0; v < kPanel<Acc>; v += kLanes<Acc>) {
          const Vector<Acc> x = vtfast::cpu::load(column + v);
#pragma GCC unroll 16
          for (int r = 0; r < kRows; ++r) sums[r] += vtfast::cpu::load(rows + r * kPanel<Acc> + v) * x;
        }
      }
      store(products + c * kMaxShort, sum_each<Acc, kRows>(sums));
    }
  }

  int64_t head_dim_;
  Acc* panels_;
};

// Writes the lanes that a row of head_dim values has at d.
template <class T>
VTFAST_INLINE void store_at(T* row, int64_t head_dim, int64_t d, Vector<AccOf<T>> v) {
  if (d + kLanes<AccOf<T>> <= head_dim) {
    store_from_acc(row + d, v);
  } else {
    store_partial_from_acc(row + d, v, head_dim - d);
  }
}

// scores[column][row] = minus infinity where the row does not see the column.
template <class Acc>
inline void mask_short(const Group& group, Acc* scores) {
  if (!group.masked) return;
  BitsOf<Acc> regions[kMaxShort] = {};
  for (int64_t r = 0; r < group.num_rows; ++r) regions[r] = group.is_prefix_row(r) ? Group::kOpen : group.row_region[r];
  for (int64_t c = 0; c < group.num_columns; ++c) {
    const BitsOf<Acc> column = group.column_region[c];
    if (column == Group::kOpen) continue;
    for (int64_t r = 0; r < group.num_rows; r += kLanes<Acc>) {
      const Vector<BitsOf<Acc>> region = load(regions + r);
      const auto open = (region == Group::kOpen) & (column != Group::kBlocked);
      Acc* at = scores + c * kMaxShort + r;
      store(at, (region == column) | open ? load(at) : broadcast(-kInfinity<Acc>));
    }
  }
}

}  // namespace vtfast::cpu
