// The CPU's rotary embedding: raw pointers only. Compiled once per instruction set.
#pragma once

#include "../rotary_embedding.h"

namespace vtfast::cpu {

void rotary_embedding(const RotaryEmbeddingParams& params);

}  // namespace vtfast::cpu
