// Memory of one thread, kept between calls: fresh pages cost more than the work done in them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace vtfast::cpu {

class Scratch {
 public:
  static Scratch& of_this_thread() {
    thread_local Scratch scratch;
    return scratch;
  }

  // Forgets what was taken and makes room for `bytes`; gives back what an unusually large call has left behind.
  void reserve(size_t bytes) {
    used_ = 0;
    if (bytes <= size_ && size_ <= std::max(bytes, kKept)) return;
    std::free(memory_);
    size_ = 0;
    memory_ = static_cast<char*>(std::aligned_alloc(kAlignment, round_up(bytes)));
    if (memory_ == nullptr) throw std::bad_alloc();
    size_ = round_up(bytes);
  }

  template <class T>
  T* take(int64_t count) {
    char* taken = memory_ + used_;
    used_ += bytes_of<T>(count);
    return reinterpret_cast<T*>(taken);
  }

  template <class T>
  static size_t bytes_of(int64_t count) {
    return round_up(count * sizeof(T) + kSlack);
  }

  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

 private:
  // Arrays start at a cache line, and may be read one vector past their end.
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kSlack = 64;
  static constexpr size_t kKept = 32 << 20;

  static size_t round_up(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

  Scratch() = default;
  ~Scratch() { std::free(memory_); }

  char* memory_ = nullptr;
  size_t size_ = 0;
  size_t used_ = 0;
};

}  // namespace vtfast::cpu
