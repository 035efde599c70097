#include "attention_forward.h"
#include "grid_attention.h"
#include "parallel.h"
#include "short_forward.h"
#include "with_data_type.h"

namespace vtfast::cpu {
namespace {

// Writes the prefix's mean over its passes: acc [B, num_passes, num_heads, P, head_dim] -> out.
template <class T>
void average_prefix(const GridAttentionParams& p, const AccOf<T>* passes) {
  using Acc = AccOf<T>;
  const int64_t prefix_size = p.geometry.num_prefix * p.head_dim, num_passes = p.num_passes();
  parallel_for(p.batch * p.num_heads, [&](int64_t begin, int64_t end) {
    Scratch& scratch = Scratch::of_this_thread();
    scratch.reserve(Scratch::bytes_of<Acc>(prefix_size) + HeadView<T>::scratch_bytes(p));
    Acc* sum = scratch.take<Acc>(prefix_size);
    HeadView<T> view(p, scratch);
    for (int64_t item = begin; item < end; ++item) {
      const int64_t batch = item / p.num_heads, head = item % p.num_heads;
      view.select(batch, head);
      std::fill_n(sum, prefix_size, Acc(0));
      for (int64_t pass = 0; pass < num_passes; ++pass) {
        const Acc* part = passes + view.prefix(pass, 0) * p.head_dim;
        for (int64_t i = 0; i < prefix_size; ++i) sum[i] += part[i];
      }
      for (int64_t token = 0; token < p.geometry.num_prefix; ++token) {
        store_row(sum + token * p.head_dim, p.head_dim, Acc(1) / num_passes, static_cast<T*>(p.out) + view.out(token));
      }
    }
  });
}

// Calls body with an engine in this thread's scratch memory.
template <class Engine, class Body>
void with_engine(const GridAttentionParams& p, typename Engine::Acc* prefix_out, Body body) {
  Scratch& scratch = Scratch::of_this_thread();
  scratch.reserve(Engine::scratch_bytes(p));
  Engine engine(p, prefix_out, scratch);
  [[maybe_unused]] typename Engine::Session session;
  body(engine);
}

template <class Dot, class T>
void run(const GridAttentionParams& p, void* workspace) {
  using Acc = typename Dot::Acc;
  auto* prefix_out = static_cast<Acc*>(workspace);
  const int64_t groups = p.geometry.num_groups(), items = p.batch * groups;
  // A head's bias is laid out once for all groups; without one, a group's tokens are listed once for all heads.
  const auto task = [&](int64_t i) {
    const bool by_head = p.bias_table != nullptr;
    const int64_t item = by_head ? i % items : i / p.num_heads;
    return GroupTask{item / groups, item % groups, by_head ? i / items : i % p.num_heads};
  };
  if (is_short(p)) {
    parallel_for(items, [&](int64_t begin, int64_t end) {
      with_engine<ShortForward<T>>(p, prefix_out, [&](ShortForward<T>& engine) {
        for (int64_t i = begin; i < end; ++i) engine.run(i, std::min(i + 1, end - 1));
      });
    });
  } else {
    parallel_for(items * p.num_heads, [&](int64_t begin, int64_t end) {
      with_engine<AttentionForward<Dot, T>>(p, prefix_out, [&](AttentionForward<Dot, T>& engine) {
        for (int64_t i = begin; i < end; ++i) engine.run(task(i), task(std::min(i + 1, end - 1)));
      });
    });
  }
  if (!p.prefix_attends()) return;
  if (p.prefix_queries == PrefixQueries::kGlobal) {
    parallel_for(p.batch * p.num_heads, [&](int64_t begin, int64_t end) {
      with_engine<AttentionForward<Dot, T>>(p, prefix_out, [&](AttentionForward<Dot, T>& engine) {
        for (int64_t i = begin; i < end; ++i) engine.run_global(i / p.num_heads, i % p.num_heads);
      });
    });
  }
  average_prefix<T>(p, prefix_out);
}

void run_bfloat16(const GridAttentionParams& p, void* workspace) {
#if defined(__AMX_BF16__)
  return run<MatrixUnitDot, BFloat16>(p, workspace);
#else
#if defined(__AVX512BF16__)
  // The bias is divided by the scale, see AttentionForward::unit.
  if (p.scale > 1e-6 && p.scale < 1e6) return run<BFloat16Dot, BFloat16>(p, workspace);
#endif
  return run<FusedDot<float>, BFloat16>(p, workspace);
#endif
}

}  // namespace

int64_t forward_workspace_size(const GridAttentionParams& p) {
  return p.batch * p.num_passes() * p.geometry.num_prefix * p.channels();
}

void grid_attention_forward(const GridAttentionParams& p, void* workspace) {
  with_data_type(p.data_type, [&]<class T>() {
    if constexpr (std::is_same_v<T, BFloat16>) {
      run_bfloat16(p, workspace);
    } else {
      run<FusedDot<AccOf<T>>, T>(p, workspace);
    }
  });
}

}  // namespace vtfast::cpu
