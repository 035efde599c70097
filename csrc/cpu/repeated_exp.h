// A yardstick of the CPU: nothing but exponentials, as the kernels take them. Compiled once per instruction set.
#pragma once

#include <cstdint>

namespace vtfast::cpu {

// out[0:size] = the sum of `rounds` times exp(x[0:size]), each computed anew.
void repeated_exp(const float* x, int64_t size, int64_t rounds, float* out);

}  // namespace vtfast::cpu
