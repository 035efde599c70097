// The GPU that is emulated: VTFAST_EMULATION_ARCH, 10 * major + minor of its compute capability, 90 if not set.
#pragma once

#include <cstddef>
#include <cstdlib>

namespace vtfast::emulation {

inline int emulated_arch() {
  const char* arch = std::getenv("VTFAST_EMULATION_ARCH");
  return arch ? std::atoi(arch) : 90;
}

// Bytes of shared memory that a block may ask for (CUDA programming guide, "Technical Specifications per Compute
// Capability").
inline size_t max_shared_bytes(int arch) {
  if (arch == 80 || arch == 87) return 163 * 1024;
  return arch == 86 || arch == 89 || arch >= 120 ? 99 * 1024 : 227 * 1024;
}

}  // namespace vtfast::emulation
