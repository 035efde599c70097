// What the CUDA binding needs of torch's CUDA side and of the driver. tests/emulation stands in for this file.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <vector>

#include "cuda/launch_plan.h"

#define VTFAST_CUDA_DISPATCH_KEY CUDA

namespace vtfast::cuda {

using DeviceGuard = torch::stable::accelerator::DeviceGuard;

inline bool on_device(const torch::stable::Tensor& tensor) { return tensor.is_cuda(); }

inline void check_status(cudaError_t status) {
  STD_TORCH_CHECK(status == cudaSuccess, "CUDA: ", cudaGetErrorString(status));
}

inline int device_attribute(cudaDeviceAttr attribute, int index) {
  int value = 0;
  check_status(cudaDeviceGetAttribute(&value, attribute, index));
  return value;
}

inline std::vector<Device> query_devices() {
  int count = 0;
  check_status(cudaGetDeviceCount(&count));
  std::vector<Device> devices;
  for (int index = 0; index < count; ++index) {
    devices.push_back({10 * device_attribute(cudaDevAttrComputeCapabilityMajor, index) +
                           device_attribute(cudaDevAttrComputeCapabilityMinor, index),
                       device_attribute(cudaDevAttrMultiProcessorCount, index),
                       device_attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin, index),
                       device_attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor, index)});
  }
  return devices;
}

// Asked once a process: attributes are cheap, but not for every call.
inline const Device& device_of(const torch::stable::Tensor& tensor) {
  static const std::vector<Device> devices = query_devices();
  return devices.at(static_cast<size_t>(tensor.get_device_index()));
}

// The stream (a cudaStream_t) that torch works on now, on the tensor's device.
inline void* current_stream(const torch::stable::Tensor& tensor) {
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream) == AOTI_TORCH_SUCCESS,
                  "torch has no current CUDA stream");
  return stream;
}

}  // namespace vtfast::cuda
