#include <pybind11/stl.h>

#include <tuple>

#include "cuda/launch_plan.h"
#include "torch/grid_attention_settings.h"
#include "torch/module.h"

namespace py = pybind11;

namespace vtfast {
namespace {

using DeviceTuple = std::tuple<int, int, int, int>;  // the fields of cuda::Device

DeviceTuple device_of_arch(int arch) {
  const cuda::Device device = cuda::Device::of_arch(arch);
  return {device.arch, device.num_sms, device.shared_per_block, device.shared_per_sm};
}

py::dict as_dict(const cuda::LaunchPlan& plan) {
  py::dict dict;
  dict["padded_dim"] = plan.padded_dim;
  dict["groups_per_unit"] = plan.groups_per_unit;
  dict["unit_rows"] = plan.unit_rows;
  dict["units"] = plan.units;
  dict["rows"] = plan.rows;
  dict["row_sets"] = plan.row_sets;
  dict["chunk"] = plan.chunk;
  dict["chunks"] = plan.chunks;
  dict["warps"] = plan.warps;
  dict["stages"] = plan.stages;
  dict["items"] = plan.items;
  dict["workers"] = plan.workers;
  dict["table_resident"] = plan.table_resident;
  dict["grads_resident"] = plan.grads_resident;
  dict["shared_bytes"] = plan.shared_bytes;
  return dict;
}

// The plan, or the reason why there is none.
std::tuple<py::object, py::object> grid_attention_launch_plan(const DeviceTuple& device, bool backward, int data_type,
                                                              int64_t batch, int64_t head_dim, bool bias,
                                                              const Sizes& grid, int64_t num_heads, const Sizes& block,
                                                              const Sizes& dilation, const Sizes& shift,
                                                              const Sizes& bias_window, int64_t num_prefix,
                                                              bool prefix_keys, int64_t prefix_queries) {
  const GridAttentionSettings settings{grid,  num_heads, block,      dilation,    shift,          bias_window,
                                       false, true,      num_prefix, prefix_keys, prefix_queries, 1.0};
  GridAttentionParams p = make_params(settings, static_cast<DataType>(data_type), batch, 3 * num_heads * head_dim);
  p.bias_table = bias ? &p : nullptr;  // never read: a plan depends on whether there is a table
  if (const char* reason = cuda::unsupported(p)) return {py::none(), py::str(reason)};
  const auto [arch, num_sms, shared_per_block, shared_per_sm] = device;
  const cuda::Pass pass = backward ? cuda::Pass::kBackward : cuda::Pass::kForward;
  return {as_dict(cuda::make_launch_plan(p, {arch, num_sms, shared_per_block, shared_per_sm}, pass)), py::none()};
}

}  // namespace

void bind_launch_plan(py::module_& module) {
  module.def("device_of_arch", &device_of_arch, py::arg("arch"),
             "Architecture, multiprocessors, and bytes of shared memory of a block and of a multiprocessor of the "
             "largest GPU of an architecture (90 for 9.0).");
  module.def("grid_attention_launch_plan", &grid_attention_launch_plan, py::kw_only(), py::arg("device"),
             py::arg("backward"), py::arg("data_type"), py::arg("batch"), py::arg("head_dim"), py::arg("bias"),
             py::arg("grid"), py::arg("num_heads"), py::arg("block"), py::arg("dilation"), py::arg("shift"),
             py::arg("bias_window"), py::arg("num_prefix"), py::arg("prefix_keys"), py::arg("prefix_queries"),
             "The launch plan of grid attention, and None; or None and the reason why no kernel takes these sizes.");
}

}  // namespace vtfast
