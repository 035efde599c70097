// What forward and backward share: the operands of one head of one group, and its scores.
#pragma once

#include "bias.h"
#include "group.h"
#include "operands.h"
#include "softmax.h"

namespace vtfast::cpu {

template <class Acc>
inline constexpr int64_t kPackedRows = (kMaxTileRows + kLanes<Acc> - 1) / kLanes<Acc> * kLanes<Acc>;

// Addresses of the rows of q, k, v, d_q, ... of one clip and head in the packed layout.
template <class T>
class HeadView {
 public:
  static size_t scratch_bytes(const GridAttentionParams& p) { return Scratch::bytes_of<T>(p.head_dim); }

  HeadView(const GridAttentionParams& p, Scratch& scratch) : p_(p), zeros_(scratch.take<T>(p.head_dim)) {
    std::fill_n(zeros_, p.head_dim, T{});
  }

  void select(int64_t batch, int64_t head) {
    batch_ = batch;
    head_ = head;
    first_ = batch * p_.num_tokens();
    offset_ = head * p_.head_dim;
  }

  int64_t packed(int64_t token, int64_t which) const {
    return ((first_ + token) * 3 + which) * p_.channels() + offset_;
  }

  // Row `which` (0 q, 1 k, 2 v) of a token; padding is the projection of a zero token.
  const T* row(int64_t token, int64_t which) const {
    if (token != Group::kPadding) return static_cast<const T*>(p_.qkv) + packed(token, which);
    if (p_.pad_qkv == nullptr) return zeros_;
    return static_cast<const T*>(p_.pad_qkv) + which * p_.channels() + offset_;
  }

  // Index of a token's row in `out` and its gradient.
  int64_t out(int64_t token) const {
    const int64_t skipped = p_.geometry.num_prefix - p_.out_prefix();
    const int64_t tokens = p_.geometry.num_tokens() + p_.out_prefix();
    return (batch_ * tokens + token - skipped) * p_.channels() + offset_;
  }

  // Index of a grid token in `lse`.
  int64_t lse(int64_t token) const {
    const int64_t tokens = p_.geometry.num_tokens();
    return (batch_ * p_.num_heads + head_) * tokens + token - p_.geometry.num_prefix;
  }

  // Index of a prefix token in [B, num_passes, num_heads, P].
  int64_t prefix(int64_t pass, int64_t token) const {
    return ((batch_ * p_.num_passes() + pass) * p_.num_heads + head_) * p_.geometry.num_prefix + token;
  }

 private:
  const GridAttentionParams& p_;
  T* zeros_;  // [head_dim]
  int64_t batch_ = 0;
  int64_t head_ = 0;
  int64_t first_ = 0;
  int64_t offset_ = 0;
};

// The group at work and the one after it, whose rows are fetched into the cache one by one in the course of the work:
// they lie too far apart for the processor to guess them, and waiting for them would cost a fifth of the time.
template <class T>
class GroupPair {
 public:
  static size_t scratch_bytes(const GridAttentionParams& p) {
    return 2 * (Group::scratch_bytes(p) + HeadView<T>::scratch_bytes(p));
  }

  GroupPair(const GridAttentionParams& p, Scratch& scratch)
      : p_(p), groups_{{p, scratch}, {p, scratch}}, views_{{p, scratch}, {p, scratch}} {}

  const Group& group() const { return groups_[current_]; }
  const HeadView<T>& view() const { return views_[current_]; }

  // Moves to `task`; `next` is the one that will follow it.
  void advance(const GroupTask& task, const GroupTask& next) {
    current_ = 1 - current_;
    select(current_, task);
    select(1 - current_, next);
    fetched_ = 0;
  }

  void advance_global(int64_t batch, int64_t head) {
    groups_[current_].gather_global(batch);
    views_[current_].select(batch, head);
    fetched_ = groups_[1 - current_].num_columns;
  }

  // Fetches one more token of the next group; also(token, view) may fetch more of it.
  template <class Also>
  VTFAST_INLINE void fetch(Also also) {
    const Group& next = groups_[1 - current_];
    if (fetched_ >= next.num_columns) return;
    const int64_t token = next.column_token[fetched_++];
    if (token == Group::kPadding) return;
    for (int which : {0, 1, 2}) fetch_row(views_[1 - current_].row(token, which));
    also(token, views_[1 - current_]);
  }

  void fetch_row(const T* row) const {
    const char* line = reinterpret_cast<const char*>(row);
    for (size_t offset = 0; offset < p_.head_dim * sizeof(T); offset += 64) {
      prefetch(line + offset);
    }
  }

 private:
  void select(int which, const GroupTask& task) {
    groups_[which].gather(task.batch, task.group);
    views_[which].select(task.batch, task.head);
  }

  const GridAttentionParams& p_;
  Group groups_[2];
  HeadView<T> views_[2];
  int current_ = 0;
  int64_t fetched_ = 0;
};

// The score panels of up to one tile of query rows against all keys of a group.
template <class Dot>
class Scores {
 public:
  using Acc = typename Dot::Acc;
  using Word = typename Dot::Word;

  static size_t scratch_bytes(const GridAttentionParams& p) {
    const int64_t columns = round_up(Group::max_columns(p), kPanel<Acc>);
    const HeadLayout<Dot> head(p.head_dim);
    return Scratch::bytes_of<Word>(kPackedRows<Acc> * head.word_stride) + Scratch::bytes_of<Acc>(columns) +
           Scratch::bytes_of<Acc>(kMaxTileRows * (columns + kPanel<Acc>)) +
           Scratch::bytes_of<Word>(kLanes<Word> * head.word_stride);
  }

  Scores(const GridAttentionParams& p, Scratch& scratch) : head_(p.head_dim) {
    const int64_t columns = round_up(Group::max_columns(p), kPanel<Acc>);
    packed_q_ = scratch.take<Word>(kPackedRows<Acc> * head_.word_stride);
    no_bias_ = scratch.take<Acc>(columns);
    tails_ = scratch.take<Acc>(kMaxTileRows * (columns + kPanel<Acc>));
    staging_ = scratch.take<Word>(kLanes<Word> * head_.word_stride);
  }

  // Panels that are slots throughout take their bias from where it lies; the columns behind them, the last slots, the
  // prefix (no bias) and what fills the last vector (never seen), from `tails_`.
  void begin_group(const Group& group, bool has_bias) {
    group_ = &group;
    columns_ = round_up(group.num_columns, kLanes<Acc>);
    tail_start_ = has_bias ? group.num_slots / kPanel<Acc> * kPanel<Acc> : 0;
    std::fill_n(no_bias_, group.num_columns, Acc(0));
    std::fill_n(no_bias_ + group.num_columns, columns_ - group.num_columns, -kInfinity<Acc>);
  }

  int64_t columns() const { return columns_; }
  int64_t num_panels() const { return (columns_ + kPanel<Acc> - 1) / kPanel<Acc>; }
  const HeadLayout<Dot>& head() const { return head_; }

  // Packs all rows k of `which` as the right side of a product over head_dim: [panel][word][kPanel].
  template <class T>
  void pack_keys(const HeadView<T>& view, int64_t which, Word* panels) {
    for (int64_t column = 0; column < columns_; column += kLanes<Acc>) {
      const auto row = [&](int i) {
        const int64_t c = std::min(column + i, group_->num_columns - 1);
        return view.row(group_->column_token[c], which);
      };
      Word* target = panels + column / kPanel<Acc> * panel_words() + column % kPanel<Acc>;
      pack_columns<Dot>(row, head_, Acc(1), staging_, target, kPanel<Acc>);
    }
  }

  int64_t panel_words() const { return head_.word_stride * kPanel<Acc>; }

  // Packs tile rows, given by row(m) for m < kMaxTileRows, as the left side: [word][kPackedRows].
  template <class Row>
  const Word* pack_rows(Row row, Acc scale) {
    for (int64_t m = 0; m < kPackedRows<Acc>; m += kLanes<Word>) {
      pack_columns<Dot>([&](int i) { return row(m + i); }, head_, scale, staging_, packed_q_ + m, kPackedRows<Acc>);
    }
    return packed_q_;
  }

  // Sets the bias of tile row m: that of slot `slot`, or none.
  void set_bias(int m, const BiasRuns<Acc>* bias, int64_t slot) {
    if (bias == nullptr) {
      bias_[m] = tails_at_[m] = no_bias_;
      return;
    }
    bias_[m] = bias->row(slot);
    Acc* tail = tails_ + m * (columns_ - tail_start_);
    const int64_t slots_left = group_->num_slots - tail_start_;
    std::copy_n(bias_[m] + tail_start_, slots_left, tail);
    std::copy_n(no_bias_ + group_->num_slots, columns_ - group_->num_slots, tail + slots_left);
    tails_at_[m] = tail - tail_start_;
  }

  // scores[panel][m][...] = bias + q k^T; between() is called after each panel.
  template <int kRows, class Between>
  VTFAST_INLINE void compute(const Word* rows, const Word* keys, Acc* scores, int64_t panel_stride,
                             Between between) const {
    for (int64_t column = 0; column < columns_; column += kPanel<Acc>) {
      const Acc* const* bias = column < tail_start_ ? bias_ : tails_at_;
      const auto initial = [&](int m, int c) { return load(bias[m] + column + c); };
      product<kRows>(rows, keys, columns_ - column, initial, [scores](int m, int c, Vector<Acc> sum) {
        store(scores + m * kPanel<Acc> + c, sum);
      });
      keys += panel_words();
      scores += panel_stride;
      between();
    }
  }

  // One panel of rows x keys: sink(m, column, initial(m, column) + sum).
  template <int kRows, class Initial, class Sink>
  VTFAST_INLINE void product(const Word* rows, const Word* keys, int64_t columns_left, Initial initial,
                             Sink sink) const {
    if (columns_left > kLanes<Acc>) {
      product_of_vectors<kRows, 2>(rows, keys, initial, sink);
    } else {
      product_of_vectors<kRows, 1>(rows, keys, initial, sink);
    }
  }

 private:
  // Not inlined: on its own, the compiler keeps the whole tile in registers.
  template <int kRows, int kVectors, class Initial, class Sink>
  __attribute__((noinline)) void product_of_vectors(const Word* rows, const Word* keys, Initial initial, Sink sink) const {
    Tile<Dot, kRows, kVectors> tile;
    tile.fill(initial);
    tile.template multiply_add<1, kPackedRows<Acc>>(rows, keys, kPanel<Acc>, head_.words);
    tile.drain(sink);
  }

  HeadLayout<Dot> head_;
  const Group* group_ = nullptr;
  int64_t columns_ = 0;
  int64_t tail_start_ = 0;
  Word* packed_q_;
  Acc* no_bias_;
  Acc* tails_;
  Word* staging_;
  const Acc* bias_[kMaxTileRows];
  const Acc* tails_at_[kMaxTileRows];
};

// product[m] = sum over columns of panels[m][column] rows[column]: sink(m, d, sum). Panels are kRows tall out of
// `panel_stride` words; `depth` counts words.
template <class Dot, int kRows, class Sink>
VTFAST_INLINE void multiply_panels(const typename Dot::Word* panels, int64_t panel_stride, int64_t depth,
                                   const typename Dot::Word* rows, int64_t padded, Sink sink) {
  using Acc = typename Dot::Acc;
  constexpr int kPanelWords = kPanel<Acc> / Dot::kPack;
  const auto multiply = [&]<int kVectors>(int64_t d) {
    const typename Dot::Word *p = panels, *r = rows + d;
    Tile<Dot, kRows, kVectors> tile;
    tile.fill([](int, int) { return Vector<Acc>{}; });
    for (int64_t left = depth; left > 0; left -= kPanelWords, p += panel_stride, r += kPanelWords * padded) {
      tile.template multiply_add<kPanelWords, 1>(p, r, padded, std::min<int64_t>(left, kPanelWords));
    }
    tile.drain([&](int m, int c, Vector<Acc> sum) { sink(m, d + c, sum); });
  };
  int64_t d = 0;
  for (; d + kPanel<Acc> <= padded; d += kPanel<Acc>) multiply.template operator()<2>(d);
  if (d < padded) multiply.template operator()<1>(d);
}

}  // namespace vtfast::cpu
