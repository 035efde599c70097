// Scores are kept as logarithms of base 2, which GPUs raise to powers of; what leaves the kernels is natural.
#pragma once

namespace vtfast::cuda {

inline constexpr float kLog2e = 1.44269504088896340736f, kLn2 = 0.69314718055994530942f;

}  // namespace vtfast::cuda
