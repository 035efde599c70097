// Where one head of one clip lies in the packed tensors.
#pragma once

#include "group.h"
#include "simd.h"

namespace vtfast::cpu {

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

}  // namespace vtfast::cpu
