// vtfast._C: what is not a tensor operation. It links nothing of torch, so it loads whatever torch is installed.
#include "torch/module.h"

#include "build_config.h"

namespace py = pybind11;

namespace vtfast {
namespace {

py::object cuda_build() {
  if (*kCudaCompiler == '\0') return py::none();
  py::dict cuda;
  cuda["compiler"] = kCudaCompiler;
  cuda["architectures"] = py::str(kCudaArchitectures).attr("split")();
  return cuda;
}

py::dict build_info() {
  py::dict flags;
  for (const CpuLibrary& library : cpu_libraries()) {
    flags[library.name] = library.flags;
  }
  py::dict info;
  info["compiler"] = kCompiler;
  info["cpu_flags"] = flags;
  info["torch_built_against"] = kTorchVersion;
  info["torch_floor"] = kTorchFloor;
  info["cuda"] = cuda_build();
  return info;
}

py::dict processor_features() {
  py::dict features;
  for (const CpuLibrary& library : cpu_libraries()) {
    features[library.name] = library.supported;
  }
  return features;
}

const char* processor_vendor() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_is("intel")) return "intel";
  if (__builtin_cpu_is("amd")) return "amd";
#endif
  return "other";
}

}  // namespace
}  // namespace vtfast

PYBIND11_MODULE(_C, module) {
  module.doc() = "Build and processor information and launch plans of vtfast.";
  module.def("build_info", &vtfast::build_info,
             "Compiler, flags of each CPU library, torch built against and its floor, and the CUDA build (or None).");
  module.def("processor_features", &vtfast::processor_features,
             "Whether this processor runs each CPU library, from the oldest instruction set to the newest.");
  module.def("processor_vendor", &vtfast::processor_vendor, "Who made this processor: intel, amd or other.");
  vtfast::bind_launch_plan(module);
}
