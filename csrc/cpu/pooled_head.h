// Where one head of one clip lies in the tensors of pooling attention, and the bias of its queries.
#pragma once

#include <optional>

#include "relative_bias.h"
#include "score_panels.h"

namespace vtfast::cpu {

// The columns of the keys are those of the grid and then the prefix, so that the bias begins with a column.
template <class Dot, class T>
class PooledHead {
 public:
  using Acc = typename Dot::Acc;

  static size_t scratch_bytes(const PoolingAttentionParams& p) {
    return (Dot::kMaxRows + 1) * Scratch::bytes_of<Acc>(max_columns(p) + kLanes<Acc>) +
           Scratch::bytes_of<Acc>(RelativeBias<Acc>::padded(p)) +
           (RelativeBias<Acc>::present(p) ? RelativeBias<Acc>::scratch_bytes(p) : 0);
  }

  // `unit` is what a score is still to be multiplied by to be in base-2 units.
  PooledHead(const PoolingAttentionParams& p, double unit, Scratch& scratch)
      : p_(p), factor_(static_cast<Acc>(kLog2E / unit)) {
    const int64_t room = max_columns(p) + kLanes<Acc>;
    no_bias_ = scratch.take<Acc>(room);
    for (Acc*& bias : biases_) bias = scratch.take<Acc>(room);
    query_ = scratch.take<Acc>(RelativeBias<Acc>::padded(p));
    if (RelativeBias<Acc>::present(p)) relative_.emplace(p, scratch);
    finish(no_bias_, 0);
  }

  static int64_t max_columns(const PoolingAttentionParams& p) { return round_up(p.num_keys(), kPanel<Acc>); }

  void select(int64_t batch, int64_t head) {
    batch_ = batch;
    head_ = head;
  }

  const T* query(int64_t row) const { return address(p_.q, row); }
  const T* key(int64_t column) const { return address(p_.k, token(column)); }
  const T* value(int64_t column) const { return address(p_.v, token(column)); }

  // The key that a column is.
  int64_t token(int64_t column) const {
    const int64_t grid_keys = p_.grid_keys();
    return column < grid_keys ? p_.num_prefix + column : column - grid_keys;
  }

  // Index of the head's channels of a row in a contiguous tensor of `tokens` tokens.
  int64_t index(int64_t tokens, int64_t row) const {
    return (batch_ * tokens + row) * p_.channels() + head_ * p_.head_dim;
  }
  int64_t lse(int64_t row) const { return (batch_ * p_.num_heads + head_) * p_.num_queries() + row; }

  bool is_residual(int64_t row) const { return row < p_.num_prefix ? p_.residual_prefix : p_.residual; }
  RelativeBias<Acc>* relative() { return relative_ ? &*relative_ : nullptr; }

  // Makes row m of bias() that of a query. The prefix has none, and nothing is seen behind the last column.
  void set_bias(int m, int64_t row) {
    if (!relative_ || row < p_.num_prefix) {
      bias_[m] = no_bias_;
      return;
    }
    load_row(query(row), p_.head_dim, RelativeBias<Acc>::padded(p_), Acc(1), query_);
    relative_->select(row - p_.num_prefix);
    relative_->expand(query_, factor_, biases_[m]);
    finish(biases_[m], p_.grid_keys());
    bias_[m] = biases_[m];
  }

  const Acc* const* bias() const { return bias_; }

 private:
  const T* address(const TokenRows& rows, int64_t token) const {
    return static_cast<const T*>(rows.data) + batch_ * rows.batch_stride + token * rows.token_stride +
           head_ * p_.head_dim;
  }

  // The columns from `first` on: no bias up to the last key.
  void finish(Acc* bias, int64_t first) const {
    std::fill(bias + first, bias + p_.num_keys(), Acc(0));
    std::fill(bias + p_.num_keys(), bias + max_columns(p_), -kInfinity<Acc>);
  }

  const PoolingAttentionParams& p_;
  Acc factor_;
  std::optional<RelativeBias<Acc>> relative_;
  Acc* no_bias_;                // [columns]
  Acc* biases_[Dot::kMaxRows];  // each [columns]
  const Acc* bias_[Dot::kMaxRows];
  Acc* query_;  // [padded]
  int64_t batch_ = 0;
  int64_t head_ = 0;
};

}  // namespace vtfast::cpu
