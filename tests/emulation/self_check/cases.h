// What the emulator must compute, and mistakes in kernels that it must not let pass. A case throws if it finds a wrong
// result.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

namespace vtfast::self_check {

struct Case {
  const char* name;
  void (*run)();
};

std::vector<Case> correct_cases();
std::vector<Case> planted_mistakes();

inline void expect(bool condition, const std::string& message) {
  if (!condition) throw std::runtime_error("wrong: " + message);
}

}  // namespace vtfast::self_check
