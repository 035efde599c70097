#include "engine/fiber.h"

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <utility>

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

}  // namespace

Fiber::Fiber() : stack_(std::make_unique_for_overwrite<std::byte[]>(kStackSize)) {
  std::memcpy(stack_.get(), &kCanary, sizeof(kCanary));
}

void Fiber::start(std::function<void()> body, int color) {
  if (!finished_) sanitized_.abandon(stack_.get(), kStackSize);
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

void Fiber::resume() {
  running = this;
  sanitized_.before_resume(stack_.get(), kStackSize);
  vtfast_switch_stack(&caller_stack_pointer_, stack_pointer_);
  sanitized_.after_resume();
  if (*reinterpret_cast<const volatile uint64_t*>(stack_.get()) != kCanary) {
    throw std::runtime_error("emulation: a thread needs more stack than its fiber has");
  }
}

void Fiber::pause() {
  return_to_caller();
  sanitized_.after_pause();
}

void Fiber::return_to_caller() {
  sanitized_.before_pause(finished_);
  vtfast_switch_stack(&stack_pointer_, caller_stack_pointer_);
}

void Fiber::enter() {
  Fiber* self = running;
  self->sanitized_.after_pause();
  self->body_();
  self->finished_ = true;
  self->return_to_caller();
  __builtin_unreachable();
}

}  // namespace vtfast::emulation
