// The element types of tokens.
#pragma once

namespace vtfast {

enum class DataType : int { kFloat32, kBFloat16, kFloat16, kFloat64 };

}  // namespace vtfast
