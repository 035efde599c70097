// Scores of a tile of query rows against the keys of a group.
#pragma once

#include "bias.h"
#include "head_view.h"
#include "penalties.h"
#include "score_panels.h"

namespace vtfast::cpu {

// The bias of up to one tile of query rows, and who of a group sees whom.
template <class Dot>
class Scores : public ScorePanels<Dot> {
 public:
  using typename ScorePanels<Dot>::Acc;

  static size_t scratch_bytes(const GridAttentionParams& p) {
    const int64_t columns = max_columns(p);
    return ScorePanels<Dot>::scratch_bytes(p.head_dim) + Penalties<Acc>::scratch_bytes(p, columns) +
           2 * Scratch::bytes_of<Acc>(columns) + Scratch::bytes_of<Acc>(Dot::kMaxRows * (columns + kPanel<Acc>));
  }

  Scores(const GridAttentionParams& p, Scratch& scratch)
      : ScorePanels<Dot>(p.head_dim, scratch), penalties_(p, max_columns(p), scratch) {
    const int64_t columns = max_columns(p);
    no_bias_ = scratch.take<Acc>(columns);
    is_slot_ = scratch.take<BitsOf<Acc>>(columns);
    tails_ = scratch.take<Acc>(Dot::kMaxRows * (columns + kPanel<Acc>));
  }

  static int64_t max_columns(const GridAttentionParams& p) { return round_up(Group::max_columns(p), kPanel<Acc>); }

  // Panels that are slots throughout take their bias from where it lies; the columns behind them, the last slots, the
  // prefix (no bias) and what fills the last vector (never seen), from `tails_`.
  void begin_group(const Group& group, bool has_bias) {
    group_ = &group;
    this->begin(group.num_columns);
    const int64_t columns = this->columns();
    penalties_.begin_group(group, columns);
    tail_start_ = has_bias ? group.num_slots / kPanel<Acc> * kPanel<Acc> : 0;
    std::fill_n(no_bias_, group.num_columns, Acc(0));
    std::fill_n(no_bias_ + group.num_columns, columns - group.num_columns, -kInfinity<Acc>);
    std::fill_n(is_slot_, group.num_slots, BitsOf<Acc>(-1));
    std::fill_n(is_slot_ + group.num_slots, columns - group.num_slots, BitsOf<Acc>(0));
  }

  const Acc* penalties(int64_t row) { return penalties_.of_row(row); }

  // The bias of the tile's rows in the panel at `column`.
  const Acc* const* bias(int64_t column) const { return column < tail_start_ ? bias_ : tails_at_; }

  // Sets the bias of tile row m: that of slot `slot`, or none.
  void set_bias(int m, const BiasRuns<Acc>* bias, int64_t slot) {
    if (bias == nullptr) {
      bias_[m] = tails_at_[m] = no_bias_;
      return;
    }
    const int64_t columns = this->columns();
    bias_[m] = bias->row(slot);
    Acc* tail = tails_ + m * (columns - tail_start_);
    tails_at_[m] = tail - tail_start_;
    int64_t column = tail_start_;
    for (; column < group_->num_slots; column += kLanes<Acc>, tail += kLanes<Acc>) {
      const auto bias_bits = bit_cast<Vector<BitsOf<Acc>>>(load(bias_[m] + column)) & load(is_slot_ + column);
      store(tail, load(no_bias_ + column) + bit_cast<Vector<Acc>>(bias_bits));
    }
    for (; column < columns; column += kLanes<Acc>, tail += kLanes<Acc>) store(tail, load(no_bias_ + column));
  }

 private:
  Penalties<Acc> penalties_;
  const Group* group_ = nullptr;
  int64_t tail_start_ = 0;
  Acc* no_bias_;          // [columns], 0, and minus infinity behind the last key
  BitsOf<Acc>* is_slot_;  // [columns], all bits set for slots of the group
  Acc* tails_;
  const Acc* bias_[Dot::kMaxRows];
  const Acc* tails_at_[Dot::kMaxRows];
};

}  // namespace vtfast::cpu
