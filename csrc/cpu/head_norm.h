// LayerNorm over the channels of one head, of rows that lie in cache.
#pragma once

#include "operands.h"
#include "scratch.h"

namespace vtfast::cpu {

template <class Acc>
class HeadNorm {
 public:
  static size_t scratch_bytes(int64_t head_dim) { return 3 * Scratch::bytes_of<Acc>(round_up(head_dim, kLanes<Acc>)); }

  // Without a weight there is no norm: rows stay as they are.
  HeadNorm(const void* weight, const void* bias, int64_t head_dim, double eps, Scratch& scratch)
      : head_dim_(head_dim), padded_(round_up(head_dim, kLanes<Acc>)), eps_(eps), present_(weight != nullptr) {
    for (Acc** array : {&weight_, &bias_, &is_channel_}) {
      *array = scratch.take<Acc>(padded_);
      std::fill_n(*array, padded_, Acc(0));
    }
    std::fill_n(is_channel_, head_dim, Acc(1));
    if (!present_) return;
    std::copy_n(static_cast<const Acc*>(weight), head_dim, weight_);
    std::copy_n(static_cast<const Acc*>(bias), head_dim, bias_);
  }

  bool present() const { return present_; }
  int64_t padded() const { return padded_; }

  // row [padded] -> its norm, in place.
  VTFAST_INLINE void apply(Acc* row) const {
    if (!present_) return;
    const Acc inverse_deviation = standardise(row);
    for_each_vector(
        [&](int64_t d) { store(row + d, load(row + d) * inverse_deviation * load(weight_ + d) + load(bias_ + d)); });
  }

  // row [padded] -> the gradient of what was normed, in place, from that of the norm, `d_row` [padded]. Adds the
  // gradients of weight and bias [padded] to what they are.
  VTFAST_INLINE void differentiate(Acc* row, const Acc* d_row, Acc* d_weight, Acc* d_bias) const {
    if (!present_) {
      for_each_vector([&](int64_t d) { store(row + d, load(d_row + d)); });
      return;
    }
    const Acc inverse_deviation = standardise(row);
    Vector<Acc> sum{}, sum_of_products{};
    for_each_vector([&](int64_t d) {
      const Vector<Acc> x = load(row + d) * inverse_deviation, g = load(d_row + d), scaled = g * load(weight_ + d);
      store(row + d, x);
      store(d_weight + d, load(d_weight + d) + g * x);
      store(d_bias + d, load(d_bias + d) + g);
      sum += scaled;
      sum_of_products += scaled * x;
    });
    const Vector<Acc> mean = broadcast(reduce_add<Acc>(sum) / head_dim_);
    const Vector<Acc> slope = broadcast(reduce_add<Acc>(sum_of_products) / head_dim_);
    for_each_vector([&](int64_t d) {
      const Vector<Acc> scaled = load(d_row + d) * load(weight_ + d);
      store(row + d, (scaled - mean - load(row + d) * slope) * inverse_deviation * load(is_channel_ + d));
    });
  }

 private:
  template <class Body>
  VTFAST_INLINE void for_each_vector(Body body) const {
    for (int64_t d = 0; d < padded_; d += kLanes<Acc>) body(d);
  }

  // Takes its mean off a row and returns what it must be multiplied by for a deviation of 1.
  VTFAST_INLINE Acc standardise(Acc* row) const {
    Vector<Acc> sum{}, squares{};
    for_each_vector([&](int64_t d) { sum += load(row + d); });
    const Vector<Acc> mean = broadcast(reduce_add<Acc>(sum) / head_dim_);
    for_each_vector([&](int64_t d) {
      const Vector<Acc> centred = (load(row + d) - mean) * load(is_channel_ + d);
      store(row + d, centred);
      squares += centred * centred;
    });
    return 1 / std::sqrt(reduce_add<Acc>(squares) / head_dim_ + static_cast<Acc>(eps_));
  }

  int64_t head_dim_;
  int64_t padded_;
  double eps_;
  bool present_;
  Acc* weight_;      // [padded]
  Acc* bias_;        // [padded]
  Acc* is_channel_;  // [padded], 1, and 0 behind the last channel
};

}  // namespace vtfast::cpu
