// What vtfast._C is made of, one file a subject.
#pragma once

#include <pybind11/pybind11.h>

namespace vtfast {

void bind_launch_plan(pybind11::module_& module);

}  // namespace vtfast
