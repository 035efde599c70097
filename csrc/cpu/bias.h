// The relative position bias of one head, laid out so that the bias of a query row is one contiguous run over its keys.
#pragma once

#include <algorithm>

#include "../geometry.h"
#include "scratch.h"

namespace vtfast::cpu {

// Along the leading axis of the extent, the first that is longer than one slot, the bias depends on the offset alone.
// Slot (t, s), s its place in the plane of the axes behind, sees key (t', s') at offset t' - t, so the rows of one s
// are windows of one longer row: runs[s][t' - t + length - 1][s'].
template <class Acc>
class BiasRuns {
 public:
  static size_t scratch_bytes(const BiasGeometry& bias) {
    return Scratch::bytes_of<Acc>(bias.table_size()) + Scratch::bytes_of<Acc>(plane(bias) * run_length(bias) + kSlack);
  }

  BiasRuns(const BiasGeometry& bias, Scratch& scratch)
      : bias_(bias),
        plane_(plane(bias)),
        run_length_(run_length(bias)),
        reversed_(scratch.take<Acc>(bias.table_size())),
        runs_(scratch.take<Acc>(plane_ * run_length_ + kSlack)) {}

  // Bias of query slot `slot` for key slots 0, 1, ...; may be read up to a panel past the last key.
  Acc* row(int64_t slot) const {
    return runs_ + slot % plane_ * run_length_ + (length(bias_) - 1 - slot / plane_) * plane_;
  }

  void clear() { std::fill_n(runs_, plane_ * run_length_ + kSlack, Acc(0)); }

  // Takes column `head` of a table [R, num_heads], times `scale`.
  void expand(const Acc* table, int64_t num_heads, int64_t head, Acc scale) {
    const int64_t size = bias_.table_size();
    // The table runs against the keys: reversed, a stretch of keys is a stretch of the table.
    for (int64_t r = 0; r < size; ++r) reversed_[size - 1 - r] = table[r * num_heads + head] * scale;
    for_each_stretch([&](Acc* stretch, Acc* table_stretch, int64_t length) {
      for (int64_t i = 0; i < length; ++i) stretch[i] = table_stretch[i];
    });
    std::fill_n(runs_ + plane_ * run_length_, kSlack, Acc(0));
  }

  // The transpose of expand: table [R] = the sum of what has been added to each entry's places.
  void fold(Acc* table) {
    const int64_t size = bias_.table_size();
    std::fill_n(reversed_, size, Acc(0));
    for_each_stretch([&](Acc* stretch, Acc* table_stretch, int64_t length) {
      for (int64_t i = 0; i < length; ++i) table_stretch[i] += stretch[i];
    });
    std::reverse_copy(reversed_, reversed_ + size, table);
  }

 private:
  static constexpr int64_t kSlack = 64;

  static int leading_axis(const BiasGeometry& bias) {
    int axis = 0;
    while (axis < 2 && bias.extent[axis] == 1) ++axis;
    return axis;
  }
  static int64_t length(const BiasGeometry& bias) { return bias.extent[leading_axis(bias)]; }
  static int64_t plane(const BiasGeometry& bias) {
    return bias.extent[0] * bias.extent[1] * bias.extent[2] / length(bias);
  }
  static int64_t run_length(const BiasGeometry& bias) { return (2 * length(bias) - 1) * plane(bias); }

  // Calls body(run, table, count) for each stretch of runs that is one of the reversed table, too.
  template <class Body>
  void for_each_stretch(Body body) {
    const int axis = leading_axis(bias_);
    const int64_t height = axis == 0 ? bias_.extent[1] : 1, width = axis == 2 ? 1 : bias_.extent[2];
    Acc* last = reversed_ + bias_.table_size() - 1;
    for (int64_t s = 0; s < plane_; ++s) {
      Acc* stretch = runs_ + s * run_length_;
      for (int64_t offset = length(bias_) - 1; offset > -length(bias_); --offset) {
        for (int64_t key_h = 0; key_h < height; ++key_h, stretch += width) {
          int64_t offsets[3] = {0, s / width - key_h, s % width};
          offsets[axis] = offset;
          body(stretch, last - bias_.row(offsets[0], offsets[1], offsets[2]), width);
        }
      }
    }
  }

  const BiasGeometry& bias_;
  int64_t plane_;
  int64_t run_length_;
  Acc* reversed_;  // [R], one head's table from its last entry to its first
  Acc* runs_;      // [H * W, (2 * T - 1) * H * W]
};

}  // namespace vtfast::cpu
