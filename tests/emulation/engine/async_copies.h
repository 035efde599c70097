// The cp.async copies of one thread: bytes read, but not yet in shared memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>

namespace vtfast::emulation {

class AsyncCopies {
 public:
  using Bytes = std::array<std::byte, 16>;

  void start(void* destination, const Bytes& bytes, size_t size) {
    copies_.push_back({destination, bytes, size, open_group_});
  }

  void commit() { ++open_group_; }

  // Lands all copies but those of the last `pending` committed groups and of the open one.
  void wait(int64_t pending) {
    for (; !copies_.empty() && copies_.front().group < open_group_ - pending; copies_.pop_front()) {
      std::memcpy(copies_.front().destination, copies_.front().bytes.data(), copies_.front().size);
    }
  }

 private:
  struct Copy {
    void* destination;
    Bytes bytes;
    size_t size;
    int64_t group;
  };

  std::deque<Copy> copies_;
  int64_t open_group_ = 0;
};

}  // namespace vtfast::emulation
