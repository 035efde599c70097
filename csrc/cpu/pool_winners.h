// Which tap of each window holds the maximum, and the gradient's way back to it.
#pragma once

#include "pool_window.h"

namespace vtfast::cpu {

// winners[place][d] = number of the tap that holds the window's largest value, the first of several; of NaN the last.
// The lines come in the order of the grid's walk, which is not that of the taps where it goes along t.
template <class T>
void find_winners(const std::vector<WindowLine<T, AccOf<T>>>& lines, const WindowTaps& taps, int64_t places,
                  int64_t token_stride, int64_t head_dim, AccOf<T>* winners, int64_t winner_stride) {
  using Acc = AccOf<T>;
  for (int64_t place = 0; place < places; ++place, winners += winner_stride) {
    for (int64_t d = 0; d < head_dim; d += kLanes<Acc>) {
      const int64_t count = head_dim - d;
      Vector<Acc> largest = Largest<Acc>::start(), winner = broadcast(Acc(-1));
      for (const auto& line : lines) {
        for (int64_t i = 0; i < taps.count; ++i) {
          const int64_t token = taps.taps[i].offset + place * taps.step;
          if (token < 0 || token >= taps.size) continue;
          const Vector<Acc> x = load_up_to(line.tokens + token * token_stride + d, count);
          const Vector<Acc> tap = broadcast(static_cast<Acc>(line.first_tap + taps.taps[i].tap));
          const auto precedes = (x == largest) & (tap < winner), follows = (largest == largest) | (tap > winner);
          const auto replaces = (winner < 0) | (x > largest) | precedes | ((x != x) & follows);
          largest = replaces ? x : largest;
          winner = replaces ? tap : winner;
        }
      }
      store_up_to(winners + d, winner, count);
    }
  }
}

// The sum of the gradients of those windows over the token at `place` whose winner it is; `winners` lie as the lines
// do.
template <class Acc>
void gather_won(const std::vector<WindowLine<Acc, Acc>>& lines, const WindowTaps& taps, int64_t place,
                int64_t token_stride, int64_t to_winners, int64_t head_dim, Acc* row) {
  for (int64_t d = 0; d < head_dim; d += kLanes<Acc>) {
    const int64_t count = head_dim - d;
    Vector<Acc> sum{};
    for (const auto& line : lines) {
      for (int64_t i = 0; i < taps.count; ++i) {
        const int64_t token = taps.taps[i].offset + place * taps.step;
        if (token < 0 || token >= taps.size) continue;
        const Acc* gradient = line.tokens + token * token_stride + d;
        const Vector<Acc> winner = load_up_to(gradient + to_winners, count);
        const Vector<Acc> tap = broadcast(static_cast<Acc>(line.first_tap + taps.taps[i].tap));
        sum += winner == tap ? load_up_to(gradient, count) : Vector<Acc>{};
      }
    }
    store_up_to(row + d, sum, count);
  }
}

}  // namespace vtfast::cpu
