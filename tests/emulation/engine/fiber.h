// A stack of its own on which a function runs, pauses and goes on.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>

#include "engine/sanitizer.h"

namespace vtfast::emulation {

class Fiber {
 public:
  Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Lays `body` on the stack, dropping what was there; it runs at the next resume and must not throw. Fibers that take
  // turns should differ in `color`: equal places of their stacks would compete for the same lines of the cache.
  void start(std::function<void()> body, int color);

  // Runs until pause() or the end of the body. Throws if the stack was too small.
  void resume();

  // Called on the fiber: goes back to where resume() was called.
  void pause();

  bool finished() const { return finished_; }

 private:
  static void enter();
  void return_to_caller();

  std::unique_ptr<std::byte[]> stack_;
  std::function<void()> body_;
  void* stack_pointer_ = nullptr;
  void* caller_stack_pointer_ = nullptr;
  bool finished_ = true;
  SanitizedFiber sanitized_;
};

}  // namespace vtfast::emulation
