// What a sanitizer must be told of fibers. The engine itself is not instrumented, only kernels are.
#pragma once

#include <cstddef>

#if defined(VTFAST_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#elif defined(VTFAST_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
#endif

namespace vtfast::emulation {

#if defined(VTFAST_ADDRESS_SANITIZER)

class SanitizedFiber {
 public:
  void before_resume(const void* stack, size_t size) {
    __sanitizer_start_switch_fiber(&callers_fake_stack_, stack, size);
  }
  void after_resume() { __sanitizer_finish_switch_fiber(callers_fake_stack_, nullptr, nullptr); }
  void before_pause(bool for_good) {
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_, caller_bottom_, caller_size_);
    if (for_good) fake_stack_ = nullptr;
  }
  void after_pause() { __sanitizer_finish_switch_fiber(fake_stack_, &caller_bottom_, &caller_size_); }

  // Of a function that was left halfway, whose variables are still guarded.
  void abandon(const void* stack, size_t size) {
    fake_stack_ = nullptr;
    __asan_unpoison_memory_region(stack, size);
  }

 private:
  void* fake_stack_ = nullptr;
  void* callers_fake_stack_ = nullptr;
  const void* caller_bottom_ = nullptr;
  size_t caller_size_ = 0;
};

#elif defined(VTFAST_THREAD_SANITIZER)

class SanitizedFiber {
 public:
  void before_resume(const void*, size_t) {
    caller_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber_, __tsan_switch_to_fiber_no_sync);
  }
  void after_resume() {}
  void before_pause(bool) { __tsan_switch_to_fiber(caller_, __tsan_switch_to_fiber_no_sync); }
  void after_pause() {}
  void abandon(const void*, size_t) {}

 private:
  void* const fiber_ = __tsan_create_fiber(0);  // for as long as the process lives, as are fibers
  void* caller_ = nullptr;
};

#else

struct SanitizedFiber {
  void before_resume(const void*, size_t) {}
  void after_resume() {}
  void before_pause(bool) {}
  void after_pause() {}
  void abandon(const void*, size_t) {}
};

#endif

// What threads did before arrive() happens before what others do after a later depart(). To the thread sanitizer, what
// two threads do to one place in memory is a race unless something like this stands between.
class alignas(8) MeetingPoint {
 public:
#ifdef VTFAST_THREAD_SANITIZER
  void arrive() { __tsan_release(this); }
  void depart() { __tsan_acquire(this); }
#else
  void arrive() {}
  void depart() {}
#endif
};

// Where the same threads meet again and again. Who has met already may be on the way to the next meeting while others
// have not yet left the last one, so they need a place each.
class MeetingPlace {
 public:
  MeetingPoint& of_round(int round) { return points_[round % 2]; }

 private:
  MeetingPoint points_[2];
};

}  // namespace vtfast::emulation
