// Backward pass of one head of one short group, by the formulas of attention_backward.h.
#pragma once

#include "shared_gradients.h"
#include "short_group.h"

namespace vtfast::cpu {

template <class T>
class ShortBackward {
 public:
  using Acc = AccOf<T>;

  static size_t scratch_bytes(const GridAttentionParams& p) {
    return 2 * ShortMembers<T>::scratch_bytes(p) + HeadView<T>::scratch_bytes(p) +
           4 * ShortRows<Acc>::scratch_bytes(p.head_dim) + 2 * Scratch::bytes_of<Acc>(kMaxShort * kMaxShort) +
           Scratch::bytes_of<Acc>(kMaxShort);
  }

  ShortBackward(const GridAttentionParams& p, const GridAttentionGradients& gradients,
                const SharedGradients<Acc>& shared, Scratch& scratch)
      : p_(p),
        gradients_(gradients),
        shared_(shared),
        members_{{p, scratch}, {p, scratch}},
        view_(p, scratch),
        queries_(p.head_dim, scratch),
        keys_(p.head_dim, scratch),
        values_(p.head_dim, scratch),
        d_outs_(p.head_dim, scratch),
        probabilities_(scratch.take<Acc>(kMaxShort * kMaxShort)),
        d_scores_(scratch.take<Acc>(kMaxShort * kMaxShort)),
        lse_(scratch.take<Acc>(kMaxShort)) {
    std::fill_n(lse_, kMaxShort, Acc(0));
  }

  // All heads of a group of a clip; `next` is the one that will follow it.
  void run(int64_t item, int64_t next) {
    const int64_t num_groups = p_.geometry.num_groups();
    ShortMembers<T>& members = members_[item % 2];
    ShortMembers<T>& following = members_[next % 2];
    members.gather(item / num_groups, item % num_groups);
    if (next != item) following.gather(next / num_groups, next % num_groups);
    batch_ = item / num_groups;
    group_index_ = item % num_groups;
    for (head_ = 0; head_ < p_.num_heads; ++head_) {
      view_.select(batch_, head_);
      attend(members, [&] {
        if (next != item) fetch(following);
      });
    }
  }

 private:
  void fetch(const ShortMembers<T>& members) const {
    members.fetch(head_);
    const Group& group = members.group();
    const T* rows[kMaxShort];
    HeadView<T> view = view_;
    view.select(members.batch(), 0);
    for (int64_t r = 0; r < group.num_rows; ++r) {
      rows[r] = static_cast<const T*>(gradients_.grad_out) + view.out(group.token_of_row(r));
    }
    members.fetch_tokens(rows, group.num_rows, p_.channels(), head_);
  }

  template <class Fetch>
  void attend(const ShortMembers<T>& members, Fetch fetch) {
    const Group& group = members.group();
    load_rows(members);
    fetch();
    queries_.multiply(group.num_rows, keys_, group.num_columns, probabilities_);
    mask_short(group, probabilities_);
    d_outs_.multiply(group.num_rows, values_, group.num_columns, d_scores_);
    for (int64_t r = 0; r < group.num_rows; r += kLanes<Acc>) {
      differentiate(group.num_columns, probabilities_ + r, d_scores_ + r, lse_ + r);
    }
    write_queries(group);
    write_columns(group, 1, d_scores_, queries_, Acc(kLn2));
    write_columns(group, 2, probabilities_, d_outs_, Acc(1));
    for (int64_t token = 0; token < p_.geometry.num_prefix; ++token) {
      if (group.num_prefix_rows == 0) clear_prefix(token, 0);
      if (!p_.prefix_keys) {
        clear_prefix(token, 1);
        clear_prefix(token, 2);
      }
    }
  }

  void load_rows(const ShortMembers<T>& members) {
    const Group& group = members.group();
    for (int64_t r = 0; r < group.num_rows; ++r) {
      const bool prefix = group.is_prefix_row(r);
      const int64_t token = group.token_of_row(r);
      const Acc share = prefix ? Acc(1) / p_.num_passes() : Acc(1);
      queries_.load(r, members.query(r, head_), static_cast<Acc>(p_.scale * kLog2E));
      d_outs_.load(r, static_cast<const T*>(gradients_.grad_out) + view_.out(token), share);
      const void* lse = prefix ? p_.prefix_lse : p_.lse;
      lse_[r] = static_cast<const Acc*>(lse)[prefix ? view_.prefix(group_index_, token) : view_.lse(token)];
    }
    for (int64_t c = 0; c < group.num_columns; ++c) {
      keys_.load(c, members.column(c, 1, head_), Acc(1));
      values_.load(c, members.column(c, 2, head_), Acc(1));
    }
  }

  // Of a vector of queries, [columns][kMaxShort]: scores -> P in their place, dP -> dS in theirs. The sum of P is not
  // quite 1 where the logsumexp is large, so delta is divided by it.
  static void differentiate(int64_t columns, Acc* scores, Acc* d_scores, const Acc* lse) {
    const Vector<Acc> saved = load(lse);
    // No key at all: every score is minus infinity, and so must be what is left of it.
    const Vector<Acc> offset = saved == broadcast(-kInfinity<Acc>) ? Vector<Acc>{} : saved * Acc(kLog2E);
    Vector<Acc> sum{}, weighted{};
    for (int64_t c = 0; c < columns; ++c, scores += kMaxShort, d_scores += kMaxShort) {
      const Vector<Acc> p = exp2(load(scores) - offset);
      store(scores, p);
      sum += p;
      weighted += p * load(d_scores);
    }
    const Vector<Acc> delta = sum == 0 ? Vector<Acc>{} : weighted / sum;
    for (int64_t c = 0; c < columns; ++c) {
      scores -= kMaxShort;
      d_scores -= kMaxShort;
      store(d_scores, load(scores) * (load(d_scores) - delta));
    }
  }

  void write_queries(const Group& group) {
    const Vector<Acc> scale = broadcast(static_cast<Acc>(p_.scale));
    keys_.template combine<1, kMaxShort>(
        d_scores_, group.num_rows, group.num_columns, [&](int64_t r, int64_t d, Vector<Acc> sum) {
          if (group.is_prefix_row(r)) {
            store_at(shared_prefix(group.prefix_of_row(r), 0), p_.head_dim, d, sum * scale);
          } else {
            store_at(packed(group.token_of_row(r), 0), p_.head_dim, d, sum * scale);
          }
        });
  }

  // Gradient of k or v (`which`): the rows weighted by [columns][kMaxShort].
  void write_columns(const Group& group, int64_t which, const Acc* weights, const ShortRows<Acc>& rows, Acc factor) {
    Acc* padding = shared_.pad == nullptr ? nullptr : pad_sums(which);
    if (padding != nullptr) std::fill_n(padding, p_.head_dim, Acc(0));
    rows.template combine<kMaxShort, 1>(
        weights, group.num_columns, group.num_rows, [&](int64_t c, int64_t d, Vector<Acc> sum) {
          const int64_t token = group.column_token[c];
          if (token == Group::kPadding) {
            if (padding == nullptr) return;
            for (int64_t i = d; i < std::min<int64_t>(d + kLanes<Acc>, p_.head_dim); ++i) {
              padding[i] += sum[i - d] * factor;
            }
          } else if (token < p_.geometry.num_prefix) {
            store_at(shared_prefix(token, which), p_.head_dim, d, sum * factor);
          } else {
            store_at(packed(token, which), p_.head_dim, d, sum * factor);
          }
        });
  }

  T* packed(int64_t token, int64_t which) const {
    return static_cast<T*>(gradients_.d_qkv) + view_.packed(token, which);
  }

  Acc* shared_prefix(int64_t token, int64_t which) const {
    return shared_.of_prefix(p_, batch_, head_, group_index_, token, which);
  }

  Acc* pad_sums(int64_t which) const {
    const int64_t item = batch_ * p_.geometry.num_groups() + group_index_;
    return shared_.of_padding(p_, head_, item) + (which - 1) * p_.head_dim;
  }

  void clear_prefix(int64_t token, int64_t which) { std::fill_n(shared_prefix(token, which), p_.head_dim, Acc(0)); }

  const GridAttentionParams& p_;
  const GridAttentionGradients& gradients_;
  const SharedGradients<Acc>& shared_;
  ShortMembers<T> members_[2];
  HeadView<T> view_;
  ShortRows<Acc> queries_;  // times scale and log2(e)
  ShortRows<Acc> keys_;
  ShortRows<Acc> values_;
  ShortRows<Acc> d_outs_;
  Acc* probabilities_;  // [columns][kMaxShort rows]
  Acc* d_scores_;       // [columns][kMaxShort rows]
  Acc* lse_;            // [kMaxShort]
  int64_t batch_ = 0;
  int64_t group_index_ = 0;
  int64_t head_ = 0;
};

}  // namespace vtfast::cpu
