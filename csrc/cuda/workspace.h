// Device memory for what the kernels of an operation hand to one another.
#pragma once

#include <cstdint>

namespace vtfast::cuda {

// Hands out pieces of the workspace, or, without one, finds how large it must be.
class Workspace {
 public:
  explicit Workspace(void* memory = nullptr) : memory_(static_cast<float*>(memory)) {}

  float* take(int64_t floats) {
    float* piece = memory_ == nullptr ? nullptr : memory_ + size_;
    size_ += (floats + 3) / 4 * 4;  // so that every piece is 16-byte aligned
    return piece;
  }

  int64_t size() const { return size_; }

 private:
  float* memory_;
  int64_t size_ = 0;
};

}  // namespace vtfast::cuda
