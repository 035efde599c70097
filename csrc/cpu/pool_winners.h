// Which tap of each window holds the maximum, and the gradient's way back to it.
#pragma once

#include "pool_window.h"

namespace vtfast::cpu {

// winners[place][d] = number of the tap that holds the window's largest value, the first of several; of NaN the last.
// `line_tap` is how far apart the taps along a line are: the lines' own lie between them if that is more than 1.
template <class T>
void find_winners(const std::vector<WindowLine<T, AccOf<T>>>& lines, const WindowTaps& taps, int64_t line_tap,
                  int64_t places, int64_t token_stride, int64_t head_dim, AccOf<T>* winners, int64_t winner_stride) {
  using Acc = AccOf<T>;
  for (int64_t place = 0; place < places; ++place, winners += winner_stride) {
    for (int64_t d = 0; d < head_dim; d += kLanes<Acc>) {
      const int64_t count = head_dim - d;
      Vector<Acc> largest = Largest<Acc>::start(), winner = broadcast(Acc(-1));
      const auto consider = [&](const WindowLine<T, Acc>& line, const WindowTap& along, int64_t token) {
        const Vector<Acc> x = load_up_to(line.tokens + token * token_stride + d, count);
        const Vector<Acc> tap = broadcast(static_cast<Acc>(line.first_tap + along.tap));
        const auto replaces = Largest<Acc>::replaces(x, largest) | (winner < 0);
        largest = replaces ? x : largest;
        winner = replaces ? tap : winner;
      };
      // In the order of the taps.
      if (line_tap == 1) {
        for (const auto& line : lines) {
          for (int64_t i = 0; i < taps.count; ++i) {
            const int64_t token = taps.taps[i].offset + place * taps.step;
            if (token >= 0 && token < taps.size) consider(line, taps.taps[i], token);
          }
        }
      } else {
        for (int64_t i = 0; i < taps.count; ++i) {
          const int64_t token = taps.taps[i].offset + place * taps.step;
          if (token < 0 || token >= taps.size) continue;
          for (const auto& line : lines) consider(line, taps.taps[i], token);
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
