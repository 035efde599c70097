#include "engine/fiber.h"

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <utility>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef __x86_64__
#error "switching stacks is written for x86-64 only"
#endif

// Keeps what the calling convention asks a function to keep, and leaves by the return address of the other stack.
asm(R"(
.text
.type vtfast_switch_stack, @function
vtfast_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size vtfast_switch_stack, . - vtfast_switch_stack
)");
extern "C" void vtfast_switch_stack(void** saved_stack_pointer, void* stack_pointer);

namespace vtfast::emulation {
namespace {

constexpr size_t kStackSize = 256 * 1024;
constexpr size_t kCacheLine = 64, kColors = 64;
constexpr size_t kSavedRegisters = 6;
constexpr uint64_t kCanary = 0x7fa57ca9a12b1e55;

Fiber* running = nullptr;

void start_switch([[maybe_unused]] void** fake_stack, [[maybe_unused]] const void* bottom,
                  [[maybe_unused]] size_t size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(fake_stack, bottom, size);
#endif
}

void finish_switch([[maybe_unused]] void* fake_stack, [[maybe_unused]] const void** left_bottom,
                   [[maybe_unused]] size_t* left_size) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake_stack, left_bottom, left_size);
#endif
}

}  // namespace

Fiber::Fiber() : stack_(std::make_unique_for_overwrite<std::byte[]>(kStackSize)) {
  std::memcpy(stack_.get(), &kCanary, sizeof(kCanary));
}

void Fiber::start(std::function<void()> body, int color) {
  if (!finished_) forget_frames();
  body_ = std::move(body);
  finished_ = false;
  // enter() is left by no return, and must find the stack as if a call had pushed its return address: 0, where
  // backtraces end.
  auto* top = reinterpret_cast<uint64_t*>(stack_.get() + kStackSize - color % kColors * kCacheLine) - 1;
  *top = 0;
  *--top = reinterpret_cast<uint64_t>(&Fiber::enter);
  for (size_t i = 0; i < kSavedRegisters; ++i) *--top = 0;
  stack_pointer_ = top;
}

// Those of a body that was left halfway, whose variables the address sanitizer still guards.
void Fiber::forget_frames() {
#ifdef __SANITIZE_ADDRESS__
  ASAN_UNPOISON_MEMORY_REGION(stack_.get(), kStackSize);
#endif
}

void Fiber::resume() {
  running = this;
  void* fake_stack = nullptr;
  start_switch(&fake_stack, stack_.get(), kStackSize);
  vtfast_switch_stack(&caller_stack_pointer_, stack_pointer_);
  finish_switch(fake_stack, nullptr, nullptr);
  if (*reinterpret_cast<const volatile uint64_t*>(stack_.get()) != kCanary) {
    throw std::runtime_error("emulation: a thread needs more stack than its fiber has");
  }
}

void Fiber::pause() {
  return_to_caller();
  finish_switch(fake_stack_, &caller_bottom_, &caller_size_);
}

void Fiber::return_to_caller() {
  start_switch(finished_ ? nullptr : &fake_stack_, caller_bottom_, caller_size_);
  vtfast_switch_stack(&stack_pointer_, caller_stack_pointer_);
}

void Fiber::enter() {
  Fiber* self = running;
  finish_switch(nullptr, &self->caller_bottom_, &self->caller_size_);
  self->body_();
  self->finished_ = true;
  self->return_to_caller();
  __builtin_unreachable();
}

}  // namespace vtfast::emulation
