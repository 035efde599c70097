#include "attention_backward.h"
#include "grid_attention.h"
#include "parallel.h"
#include "short_backward.h"
#include "with_data_type.h"

namespace vtfast::cpu {
namespace {

// How the work is cut up: for each head, chunks of consecutive groups. The sums over groups follow this cut, so it
// depends on sizes alone, never on the number of threads.
struct Chunks {
  int64_t items;  // groups of all clips
  int64_t items_per_chunk;
  int64_t count;

  explicit Chunks(const GridAttentionParams& p) : items(p.batch * p.geometry.num_groups()) {
    // Each chunk folds its bias gradient once: few enough not to matter, many enough to keep many cores busy.
    constexpr int64_t kWanted = 128;
    const int64_t per_head = std::max<int64_t>(1, kWanted / p.num_heads);
    items_per_chunk = std::max<int64_t>(1, (items + per_head - 1) / per_head);
    count = (items + items_per_chunk - 1) / items_per_chunk;
  }
};

// The parts of the workspace, in elements.
struct Workspace {
  int64_t prefix = 0, pad = 0, table = 0;

  Workspace(const GridAttentionParams& p, const GridAttentionGradients& gradients) {
    const int64_t passes = p.geometry.num_groups() + 1;
    prefix = p.batch * p.num_heads * passes * p.geometry.num_prefix * 3 * p.head_dim;
    if (gradients.d_pad_qkv != nullptr && p.geometry.has_padding())
      pad = p.num_heads * p.batch * p.geometry.num_groups() * 2 * p.head_dim;
    if (gradients.d_bias_table != nullptr) table = p.num_heads * Chunks(p).count * p.bias.table_size();
  }
  int64_t size() const { return prefix + pad + table; }
};

// d_qkv of the prefix tokens = the sum of what each group, and the pass over all tokens, contributed.
template <class T>
void sum_prefix(const GridAttentionParams& p, const GridAttentionGradients& gradients, const AccOf<T>* parts) {
  using Acc = AccOf<T>;
  const int64_t size = p.geometry.num_prefix * 3 * p.head_dim;
  const bool global = p.prefix_attends() && p.prefix_queries == PrefixQueries::kGlobal;
  const int64_t used = p.geometry.num_groups() + (global ? 1 : 0);
  parallel_for(p.batch * p.num_heads, [&](int64_t begin, int64_t end) {
    Scratch& scratch = Scratch::of_this_thread();
    scratch.reserve(Scratch::bytes_of<Acc>(size) + HeadView<T>::scratch_bytes(p));
    Acc* sum = scratch.take<Acc>(size);
    HeadView<T> view(p, scratch);
    for (int64_t item = begin; item < end; ++item) {
      view.select(item / p.num_heads, item % p.num_heads);
      std::fill_n(sum, size, Acc(0));
      for (int64_t part = 0; part < used; ++part) {
        const Acc* source = parts + (item * SharedGradients<Acc>::contributions(p) + part) * size;
        for (int64_t i = 0; i < size; ++i) sum[i] += source[i];
      }
      for (int64_t token = 0; token < p.geometry.num_prefix; ++token) {
        for (int64_t which = 0; which < 3; ++which) {
          T* target = static_cast<T*>(gradients.d_qkv) + view.packed(token, which);
          store_row(sum + (token * 3 + which) * p.head_dim, p.head_dim, Acc(1), target);
        }
      }
    }
  });
}

// d_pad_qkv = the sum over groups, of which there are none (null) without padding; no query is padding, so q has none.
template <class T>
void sum_padding(const GridAttentionParams& p, const GridAttentionGradients& gradients, const AccOf<T>* parts) {
  using Acc = AccOf<T>;
  const int64_t size = 2 * p.head_dim, items = p.batch * p.geometry.num_groups();
  auto* target = static_cast<T*>(gradients.d_pad_qkv);
  std::fill_n(target, 3 * p.channels(), T{});
  if (parts == nullptr) return;
  parallel_for(p.num_heads, [&](int64_t begin, int64_t end) {
    Scratch& scratch = Scratch::of_this_thread();
    scratch.reserve(Scratch::bytes_of<Acc>(size));
    Acc* sum = scratch.take<Acc>(size);
    for (int64_t head = begin; head < end; ++head) {
      std::fill_n(sum, size, Acc(0));
      for (int64_t item = 0; item < items; ++item) {
        for (int64_t i = 0; i < size; ++i) sum[i] += parts[(head * items + item) * size + i];
      }
      for (int64_t which : {1, 2}) {
        T* row = target + which * p.channels() + head * p.head_dim;
        store_row(sum + (which - 1) * p.head_dim, p.head_dim, Acc(1), row);
      }
    }
  });
}

// d_bias_table [R, num_heads] = the sum of the chunks' tables [num_heads, chunks, R].
template <class Acc>
void sum_tables(const GridAttentionParams& p, const GridAttentionGradients& gradients, const Acc* tables,
                int64_t num_chunks) {
  const int64_t size = p.bias.table_size();
  auto* target = static_cast<Acc*>(gradients.d_bias_table);
  parallel_for(p.num_heads, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      for (int64_t r = 0; r < size; ++r) {
        Acc sum = 0;
        for (int64_t chunk = 0; chunk < num_chunks; ++chunk) sum += tables[(head * num_chunks + chunk) * size + r];
        target[r * p.num_heads + head] = sum;
      }
    }
  });
}

// Calls body with an engine in this thread's scratch memory.
template <class Engine, class Body>
void with_engine(const GridAttentionParams& p, const GridAttentionGradients& gradients,
                 const SharedGradients<typename Engine::Acc>& shared, Body body) {
  Scratch& scratch = Scratch::of_this_thread();
  scratch.reserve(Engine::scratch_bytes(p));
  Engine engine(p, gradients, shared, scratch);
  body(engine);
}

template <class Dot, class T>
void run(const GridAttentionParams& p, const GridAttentionGradients& gradients, void* workspace) {
  using Acc = typename Dot::Acc;
  using Engine = AttentionBackward<Dot, T>;
  const Workspace sizes(p, gradients);
  const Chunks chunks(p);
  auto* prefix_parts = static_cast<Acc*>(workspace);
  Acc *pad_parts = prefix_parts + sizes.prefix, *tables = pad_parts + sizes.pad;
  const SharedGradients<Acc> shared{prefix_parts, sizes.pad == 0 ? nullptr : pad_parts};
  if (is_short(p)) {
    parallel_for(chunks.items, [&](int64_t begin, int64_t end) {
      with_engine<ShortBackward<T>>(p, gradients, shared, [&](ShortBackward<T>& engine) {
        for (int64_t i = begin; i < end; ++i) engine.run(i, std::min(i + 1, end - 1));
      });
    });
  } else {
    parallel_for(p.num_heads * chunks.count, [&](int64_t begin, int64_t end) {
      with_engine<Engine>(p, gradients, shared, [&](Engine& engine) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t first = i % chunks.count * chunks.items_per_chunk;
          const int64_t last = std::min(first + chunks.items_per_chunk, chunks.items);
          engine.run(i / chunks.count, first, last, tables + i * p.bias.table_size());
        }
      });
    });
  }
  if (p.prefix_attends() && p.prefix_queries == PrefixQueries::kGlobal) {
    parallel_for(p.batch * p.num_heads, [&](int64_t begin, int64_t end) {
      with_engine<Engine>(p, gradients, shared, [&](Engine& engine) {
        for (int64_t i = begin; i < end; ++i) engine.run_global(i / p.num_heads, i % p.num_heads);
      });
    });
  }
  if (p.geometry.num_prefix > 0) sum_prefix<T>(p, gradients, prefix_parts);
  if (gradients.d_pad_qkv != nullptr) sum_padding<T>(p, gradients, shared.pad);
  if (gradients.d_bias_table != nullptr) sum_tables<Acc>(p, gradients, tables, chunks.count);
}

void run_bfloat16(const GridAttentionParams& p, const GridAttentionGradients& gradients, void* workspace) {
#if defined(__AVX512BF16__)
  // The bias is divided by the scale, see ForwardTiles::unit.
  if (p.scale > 1e-6 && p.scale < 1e6) return run<BFloat16Dot, BFloat16>(p, gradients, workspace);
#endif
  return run<FusedDot<float>, BFloat16>(p, gradients, workspace);
}

}  // namespace

int64_t backward_workspace_size(const GridAttentionParams& p, const GridAttentionGradients& gradients) {
  return Workspace(p, gradients).size();
}

void grid_attention_backward(const GridAttentionParams& p, const GridAttentionGradients& gradients, void* workspace) {
  with_data_type(p.data_type, [&]<class T>() {
    if constexpr (std::is_same_v<T, BFloat16>) {
      run_bfloat16(p, gradients, workspace);
    } else {
      run<FusedDot<AccOf<T>>, T>(p, gradients, workspace);
    }
  });
}

}  // namespace vtfast::cpu
