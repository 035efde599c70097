// Forward pass of one head of one short group.
#pragma once

#include "short_group.h"

namespace vtfast::cpu {

template <class T>
class ShortForward {
 public:
  using Acc = AccOf<T>;
  struct Session {};

  static size_t scratch_bytes(const GridAttentionParams& p) {
    return 2 * ShortMembers<T>::scratch_bytes(p) + HeadView<T>::scratch_bytes(p) +
           3 * ShortRows<Acc>::scratch_bytes(p.head_dim) + Scratch::bytes_of<Acc>(kMaxShort * kMaxShort) +
           Scratch::bytes_of<Acc>(kMaxShort);
  }

  // `prefix_out` as for AttentionForward.
  ShortForward(const GridAttentionParams& p, Acc* prefix_out, Scratch& scratch)
      : p_(p),
        prefix_out_(prefix_out),
        members_{{p, scratch}, {p, scratch}},
        view_(p, scratch),
        queries_(p.head_dim, scratch),
        keys_(p.head_dim, scratch),
        values_(p.head_dim, scratch),
        scores_(scratch.take<Acc>(kMaxShort * kMaxShort)),
        lse_(scratch.take<Acc>(kMaxShort)) {}

  // All heads of a group of a clip; `next` is the one that will follow it.
  void run(int64_t item, int64_t next) {
    const int64_t num_groups = p_.geometry.num_groups();
    ShortMembers<T>& members = members_[item % 2];
    ShortMembers<T>& following = members_[next % 2];
    members.gather(item / num_groups, item % num_groups);
    if (next != item) following.gather(next / num_groups, next % num_groups);
    for (int64_t head = 0; head < p_.num_heads; ++head) {
      view_.select(item / num_groups, head);
      attend(members, item % num_groups, head, [&] {
        if (next != item) following.fetch(head);
      });
    }
  }

 private:
  template <class Fetch>
  void attend(const ShortMembers<T>& members, int64_t pass, int64_t head, Fetch fetch) {
    const Group& group = members.group();
    load_rows(members, head);
    fetch();
    queries_.multiply(group.num_rows, keys_, group.num_columns, scores_);
    mask_short(group, scores_);
    for (int64_t r = 0; r < group.num_rows; r += kLanes<Acc>) softmax(group.num_columns, scores_ + r, lse_ + r);
    write(group, view_, pass);
  }

  void load_rows(const ShortMembers<T>& members, int64_t head) {
    const Group& group = members.group();
    const Acc scale = static_cast<Acc>(p_.scale * kLog2E);
    for (int64_t r = 0; r < group.num_rows; ++r) queries_.load(r, members.query(r, head), scale);
    for (int64_t c = 0; c < group.num_columns; ++c) {
      keys_.load(c, members.column(c, 1, head), Acc(1));
      values_.load(c, members.column(c, 2, head), Acc(1));
    }
  }

  // Scores of a vector of queries, [columns][kMaxShort] -> probabilities in their place, and natural logsumexp.
  static void softmax(int64_t columns, Acc* scores, Acc* lse) {
    Vector<Acc> largest = load(scores);
    for (int64_t c = 1; c < columns; ++c) largest = maximum(largest, load(scores + c * kMaxShort));
    largest = largest == broadcast(-kInfinity<Acc>) ? Vector<Acc>{} : largest;
    Vector<Acc> sum{};
    for (int64_t c = 0; c < columns; ++c) {
      const Vector<Acc> p = exp2(load(scores + c * kMaxShort) - largest);
      store(scores + c * kMaxShort, p);
      sum += p;
    }
    const Vector<Acc> inverse = sum == 0 ? Vector<Acc>{} : 1 / sum;
    for (int64_t c = 0; c < columns; ++c) store(scores + c * kMaxShort, load(scores + c * kMaxShort) * inverse);
    store(lse, (largest + log2(sum)) * Acc(kLn2));
  }

  void write(const Group& group, const HeadView<T>& view, int64_t pass) {
    const int64_t grid_rows = group.num_rows - group.num_prefix_rows;
    T* out[kMaxShort];
    for (int64_t r = 0; r < grid_rows; ++r) {
      const int64_t token = group.token_of_row(r);
      out[r] = static_cast<T*>(p_.out) + view.out(token);
      static_cast<Acc*>(p_.lse)[view.lse(token)] = lse_[r];
    }
    Acc* prefix_out = prefix_out_ + view.prefix(pass, 0) * p_.head_dim;
    for (int64_t i = 0; i < group.num_prefix_rows; ++i) {
      static_cast<Acc*>(p_.prefix_lse)[view.prefix(pass, i)] = lse_[grid_rows + i];
    }
    values_.template combine<1, kMaxShort>(
        scores_, group.num_rows, group.num_columns, [&](int64_t r, int64_t d, Vector<Acc> sum) {
          if (r < grid_rows) {
            store_at(out[r], p_.head_dim, d, sum);
          } else {
            store_at(prefix_out + (r - grid_rows) * p_.head_dim, p_.head_dim, d, sum);
          }
        });
  }

  const GridAttentionParams& p_;
  Acc* prefix_out_;
  ShortMembers<T> members_[2];
  HeadView<T> view_;
  ShortRows<Acc> queries_;  // times scale and log2(e)
  ShortRows<Acc> keys_;
  ShortRows<Acc> values_;
  Acc* scores_;  // [columns][kMaxShort rows]
  Acc* lse_;     // [kMaxShort]
};

}  // namespace vtfast::cpu
