// Stands in for csrc/torch/cuda_device.h: tensors of the CPU are on a small GPU.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>

#include "cuda/launch_plan.h"
#include "engine/arch.h"

#define VTFAST_CUDA_DISPATCH_KEY CPU

namespace vtfast::cuda {

class DeviceGuard {
 public:
  explicit DeviceGuard(int32_t /*index*/) {}
};

inline bool on_device(const torch::stable::Tensor& tensor) { return tensor.is_cpu(); }

// Few multiprocessors, so that a block has more than one item also where tensors are small.
inline Device small_device() {
  Device device = Device::of_arch(emulation::emulated_arch());
  device.num_sms = 4;
  return device;
}

inline const Device& device_of(const torch::stable::Tensor& /*tensor*/) {
  static const Device device = small_device();
  return device;
}

inline void* current_stream(const torch::stable::Tensor& /*tensor*/) { return nullptr; }

}  // namespace vtfast::cuda
