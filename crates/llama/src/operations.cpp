// ggml asks before each operation on the processor whether something else computes it, and how much work space that
// needs. The linker's --wrap leads both questions here, and Rust answers for the few operations it computes faster; all
// others go on to ggml's own answer. Without --wrap nobody calls this, and the weak names stay empty: the program runs on
// ggml's operations alone.
//
// This file becomes part of whatever holds ggml's processor code: of the program, or of each plug-in of a CPU variant
// (cmake/compiler_fixes.cmake). A plug-in knows nothing of the program, so the program hands its functions over.

#include <cstddef>

struct ggml_compute_params;
struct ggml_tensor;
struct ggml_threadpool;

extern "C" {
void ggml_barrier(ggml_threadpool * pool);
void ggml_threadpool_chunk_set(ggml_threadpool * pool, int value);
int ggml_threadpool_chunk_add(ggml_threadpool * pool, int value);
__attribute__((weak)) bool __real_ggml_cpu_extra_compute_forward(ggml_compute_params * params, ggml_tensor * node);
__attribute__((weak)) bool __real_ggml_cpu_extra_work_size(int n_threads, const ggml_tensor * node, std::size_t * size);
}

namespace {
// `PoolFunctions` of operations.rs.
struct pool_functions {
    void (*barrier)(ggml_threadpool *);
    void (*set_chunk)(ggml_threadpool *, int);
    int (*add_chunk)(ggml_threadpool *, int);
};
constexpr pool_functions POOL = {ggml_barrier, ggml_threadpool_chunk_set, ggml_threadpool_chunk_add};

using compute_function = bool (*)(const pool_functions *, const ggml_compute_params *, ggml_tensor *);
using work_function = std::size_t (*)(const ggml_tensor *);
compute_function compute = nullptr;
work_function work_bytes = nullptr;
}  // namespace

extern "C" {
// The number is that of the interface: one more with each change of a signature or a struct here. Called before the first
// graph is computed.
__attribute__((visibility("default"))) void ingle_take_operations_1(compute_function ours, work_function ours_need) {
    work_bytes = ours_need;
    compute = ours;
}

bool __wrap_ggml_cpu_extra_compute_forward(ggml_compute_params * params, ggml_tensor * node) {
    if (compute && compute(&POOL, params, node)) {
        return true;
    }
    return __real_ggml_cpu_extra_compute_forward && __real_ggml_cpu_extra_compute_forward(params, node);
}

bool __wrap_ggml_cpu_extra_work_size(int n_threads, const ggml_tensor * node, std::size_t * size) {
    const std::size_t ours = work_bytes ? work_bytes(node) : 0;
    if (ours > 0) {
        *size = ours;
        return true;
    }
    return __real_ggml_cpu_extra_work_size && __real_ggml_cpu_extra_work_size(n_threads, node, size);
}
}
