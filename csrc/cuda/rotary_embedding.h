// The GPU's rotary embedding, as the host sees it: raw pointers only, no CUDA header.
#pragma once

#include "../rotary_embedding.h"

namespace vtfast::cuda {

// Why the kernel cannot compute this, or null.
const char* unsupported(const RotaryEmbeddingParams& params);

// Launches on `stream` (a cudaStream_t) of the current device and returns without waiting. All tensors must be 16-byte
// aligned; unsupported() must be null.
void rotary_embedding(const RotaryEmbeddingParams& params, void* stream);

}  // namespace vtfast::cuda
