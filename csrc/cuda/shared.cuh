// Arrays in the dynamic shared memory of a block, by their offset: 32-bit arithmetic, and accesses of which the
// compiler knows that they are to shared memory.
#pragma once

#include "cuda/ptx.cuh"

namespace vtfast::cuda {

template <class T>
class Shared {
 public:
  __device__ explicit Shared(int offset) : offset_(offset) {}

  __device__ int offset() const { return offset_; }
  __device__ T* address() const { return reinterpret_cast<T*>(ptx::shared_memory() + offset_); }
  __device__ T& operator[](int index) const { return address()[index]; }
  __device__ Shared operator+(int count) const { return Shared(offset_ + count * static_cast<int>(sizeof(T))); }

  template <class U>
  __device__ Shared<U> as(int bytes = 0) const {
    return Shared<U>(offset_ + bytes);
  }

 private:
  int offset_;  // in bytes
};

}  // namespace vtfast::cuda
