#include "repeated_exp.h"

#include <algorithm>

#include "parallel.h"
#include "simd.h"
#include "softmax.h"

namespace vtfast::cpu {

void repeated_exp(const float* x, int64_t size, int64_t rounds, float* out) {
  constexpr int64_t n = kLanes<float>;
  parallel_for((size + n - 1) / n, [&](int64_t begin, int64_t end) {
    const Exp2 exp2_of(0, kLog2E);
    for (int64_t i = begin * n; i < std::min(end * n, size); i += n) {
      Vector<float> argument = load_up_to(x + i, size - i), sum{};
      for (int64_t round = 0; round < rounds; ++round) {
        argument = in_register(argument);  // or the compiler would see that every round computes the same
        sum += exp2_of(argument);
      }
      store_up_to(out + i, sum, size - i);
    }
  });
}

}  // namespace vtfast::cpu
