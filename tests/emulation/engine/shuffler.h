// Random orders from a seed: the same seed, the same orders.
#pragma once

#include <cstdint>
#include <utility>

namespace vtfast::emulation {

class Shuffler {
 public:
  explicit Shuffler(uint64_t seed) : state_(seed) {}

  template <class Items>
  void shuffle(Items& items) {
    for (uint64_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[(next() >> 32) * i >> 32]);
  }

 private:
  // splitmix64
  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

}  // namespace vtfast::emulation
